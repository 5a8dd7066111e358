//! Whether loaded weights make sense: a known text must be likely, and a question must be answered
//! with finite logits and more than one token over and over. Damaged files, wrong hyperparameters and
//! broken kernels fail here before any request sees them. It must not know requests.

use std::time::{Duration, Instant};

use crate::{
    ChatMessage, Error, Rendering,
    load::Loaded,
    model::{BATCH, Logits},
    perplexity::loss,
    sampler::likeliest,
};

/// A text that every model that read English has seen: Genesis 1, King James Version, in the form of
/// the plain text files it is handed around in.
const TEXT: &str = "Ge1:1 In the beginning God created the heaven and the earth.
Ge1:2 And the earth was without form, and void; and darkness was upon the face of the deep. And the \
Spirit of God moved upon the face of the waters.
Ge1:3 And God said, Let there be light: and there was light.
Ge1:4 And God saw the light, that it was good: and God divided the light from the darkness.";

/// A question on it.
const QUESTION: &str = "Who created the heaven and the earth?";

/// Tokens of answer generated at most.
const ANSWER: usize = 32;

/// A run of one token from which on an answer is no answer.
const RUN: usize = 12;

/// The most nats per token that [`TEXT`] may cost, as a share of chance (ln vocab). A sound model of
/// 14 million weights is at 0.41 and large ones, which know the text by heart, below 0.1; a model with
/// wrong weights is at chance or above it, since it is wrong with confidence.
const SHARE_OF_CHANCE: f64 = 0.5;

/// What the test found.
#[derive(Debug, Clone, PartialEq)]
pub struct SelfTest {
    /// Mean −ln p per token of the known text, in nats.
    pub loss: f64,
    /// ln of the vocabulary's size: the loss of a model that knows nothing.
    pub chance: f64,
    /// The answer to the question.
    pub answer: String,
    /// Time taken.
    pub elapsed: Duration,
}

/// Why the weights cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SelfTestError {
    /// NaN or infinity came out.
    #[error(
        "the model computes values that are not numbers ({stage}); its file is damaged, fetch it again"
    )]
    NotFinite {
        /// What was being computed.
        stage: &'static str,
    },
    /// A known text is no likelier than noise.
    #[error(
        "a known English text costs {loss:.2} nats per token, where at most {most:.2} is sane and \
         {chance:.2} is chance; the weights do not fit together, choose another quant or report it"
    )]
    Unlikely {
        /// Mean −ln p per token.
        loss: f64,
        /// The limit.
        most: f64,
        /// ln of the vocabulary's size.
        chance: f64,
    },
    /// A router does not look at its input.
    #[error(
        "layer {layer} sends every token of a text to the same {chosen} experts; its router is \
         damaged, fetch the file again"
    )]
    Router {
        /// Layer, counted from 0.
        layer: usize,
        /// Experts it chooses.
        chosen: usize,
    },
    /// Generation is stuck.
    #[error(
        "asked a question, the model repeats one token ({text:?}); choose another quant or report it"
    )]
    Repeats {
        /// The answer so far.
        text: String,
    },
    /// Nothing was generated.
    #[error("asked a question, the model answers nothing; choose another quant or report it")]
    Silent,
    /// The question cannot be put.
    #[error(transparent)]
    Prompt(#[from] Error),
}

pub(crate) fn run(loaded: &Loaded) -> Result<SelfTest, SelfTestError> {
    let begun = Instant::now();
    let chance = (loaded.model.vocab() as f64).ln();
    let loss = text_loss(loaded)?;
    let most = SHARE_OF_CHANCE * chance;
    if loss > most {
        return Err(SelfTestError::Unlikely { loss, most, chance });
    }
    // A dead router costs a good part of the sense and none of the finiteness, so look at it.
    if let Some((layer, chosen)) = loaded.model.dead_router() {
        return Err(SelfTestError::Router { layer, chosen });
    }
    let answer = answer(loaded)?;
    let elapsed = begun.elapsed();
    tracing::info!(loss, chance, answer, ?elapsed, "self-test passed");
    Ok(SelfTest {
        loss,
        chance,
        answer,
        elapsed,
    })
}

fn text_loss(loaded: &Loaded) -> Result<f64, SelfTestError> {
    let tokens = loaded.tokenizer.encode_prompt(TEXT);
    let mut cache = loaded
        .model
        .new_cache(tokens.len(), loaded.info.cache_type)?;
    let logits = loaded.model.forward(&tokens, &mut cache, Logits::From(0));
    if !logits.iter().all(|logit| logit.is_finite()) {
        return Err(SelfTestError::NotFinite {
            stage: "reading a text",
        });
    }
    let judged = logits.chunks_exact(loaded.model.vocab()).zip(&tokens[1..]);
    let losses: Vec<f64> = judged.map(|(logits, next)| loss(logits, *next)).collect();
    Ok(losses.iter().sum::<f64>() / losses.len() as f64)
}

fn answer(loaded: &Loaded) -> Result<String, SelfTestError> {
    let question = [ChatMessage::new("user", QUESTION)];
    let prompt = loaded
        .template
        .render(&loaded.tokenizer, &question, Rendering::answer())?;
    let mut cache = loaded
        .model
        .new_cache(prompt.len() + ANSWER, loaded.info.cache_type)?;
    let mut answer: Vec<u32> = Vec::new();
    let mut next = prompt;
    while answer.len() < ANSWER {
        let mut logits = Vec::new();
        for batch in next.chunks(BATCH) {
            logits = loaded.model.forward(batch, &mut cache, Logits::Last);
        }
        let token = likeliest(&logits)
            .filter(|_| logits.iter().all(|logit| logit.is_finite()))
            .map(|(token, _)| token)
            .ok_or(SelfTestError::NotFinite {
                stage: "answering a question",
            })?;
        if loaded.tokenizer.is_stop(token) {
            break;
        }
        answer.push(token);
        if is_stuck(&answer) {
            return Err(SelfTestError::Repeats {
                text: loaded.tokenizer.decode(&answer),
            });
        }
        next = vec![token];
    }
    if answer.is_empty() {
        return Err(SelfTestError::Silent);
    }
    Ok(loaded.tokenizer.decode(&answer))
}

/// Whether the answer ends in a long run of one token.
fn is_stuck(answer: &[u32]) -> bool {
    let run = answer
        .iter()
        .rev()
        .take_while(|id| Some(*id) == answer.last())
        .count();
    run >= RUN
}

#[cfg(test)]
mod tests;
