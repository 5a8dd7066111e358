//! Perplexity of a text as llama-perplexity computes it, so that numbers can be compared: windows of
//! `context` tokens without overlap, the second half of each scored. It must not know requests.

use std::sync::Arc;

use crate::{
    Error, Options, Progress,
    load::{Loaded, load},
    model::{BATCH, Logits},
};

/// How surprised a model is by a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Perplexity {
    /// exp of the mean negative log-likelihood per token.
    pub value: f64,
    /// Standard error of `value`.
    pub error: f64,
    /// Tokens scored.
    pub tokens: u64,
}

impl std::fmt::Display for Perplexity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4} +/- {:.5}", self.value, self.error)
    }
}

/// Loads a model and judges `text` by windows of `context` tokens, at most `chunks` of them.
///
/// Weights are used as they are in the file and everything else is f32; the KV cache is what the options say.
///
/// # Errors
/// Those of loading, and [`Error::Text`] when the text is shorter than two windows.
pub fn perplexity(
    options: &Options,
    text: &str,
    context: u32,
    chunks: Option<u32>,
    progress: &Arc<Progress>,
) -> Result<Perplexity, Error> {
    measure(&load(options, progress)?, text, context, chunks)
}

pub(crate) fn measure(
    loaded: &Loaded,
    text: &str,
    context: u32,
    chunks: Option<u32>,
) -> Result<Perplexity, Error> {
    let mut sum = 0.0;
    let mut squares = 0.0;
    let mut count = 0u64;
    for window in windows(loaded, text, context, chunks)? {
        // Logits at position i judge token i + 1; the first half only gives context.
        for loss in losses(loaded, &window, window.len() / 2)? {
            sum += loss;
            squares += loss * loss;
            count += 1;
        }
    }
    let mean = sum / count as f64;
    let variance = (squares / count as f64 - mean * mean).max(0.0);
    let value = mean.exp();
    let error = (variance / (count.saturating_sub(1).max(1)) as f64).sqrt() * value;
    Ok(Perplexity {
        value,
        error,
        tokens: count,
    })
}

/// The tokens of `text` in windows of `context` without overlap, at most `chunks` of them.
///
/// # Errors
/// [`Error::ContextTooLong`] for windows beyond the model's own context, [`Error::Text`] when the text is
/// shorter than two windows.
pub(crate) fn windows(
    loaded: &Loaded,
    text: &str,
    context: u32,
    chunks: Option<u32>,
) -> Result<Vec<Vec<u32>>, Error> {
    let trained = loaded.model.trained_context();
    if context > trained {
        return Err(Error::ContextTooLong {
            asked: context,
            most: trained,
        });
    }
    let context = context as usize;
    if context < 4 {
        return Err(Error::Text("windows need at least 4 tokens".to_owned()));
    }
    // The reference drops one newline at the end of the file.
    let tokens = loaded
        .tokenizer
        .encode_prompt(text.strip_suffix('\n').unwrap_or(text));
    if tokens.len() < 2 * context {
        return Err(Error::Text(format!(
            "the text has {} tokens; windows of {context} need at least {}",
            tokens.len(),
            2 * context
        )));
    }
    let first_token = loaded
        .tokenizer
        .bos()
        .filter(|_| loaded.tokenizer.add_bos());
    let chunks = chunks.map_or(usize::MAX, |n| n as usize);
    let windows = tokens.chunks_exact(context).take(chunks).map(|window| {
        let mut window = window.to_vec();
        if let Some(bos) = first_token {
            window[0] = bos;
        }
        window
    });
    Ok(windows.collect())
}

/// −ln p of each token after position `from`, given those before it.
fn losses(loaded: &Loaded, window: &[u32], from: usize) -> Result<Vec<f64>, Error> {
    let model = &loaded.model;
    let mut cache = model.new_cache(window.len(), loaded.info.cache_type)?;
    let mut losses = Vec::with_capacity(window.len());
    for batch in window.chunks(BATCH) {
        let start = cache.len();
        let first = from.saturating_sub(start).min(batch.len());
        let logits = model.forward(batch, &mut cache, Logits::From(first));
        for (at, logits) in (start + first..).zip(logits.chunks_exact(model.vocab())) {
            losses.extend(window.get(at + 1).map(|next| loss(logits, *next)));
        }
    }
    Ok(losses)
}

/// −ln softmax(logits)\[token\].
pub(crate) fn loss(logits: &[f32], token: u32) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - top).exp())
        .sum();
    sum.ln() - f64::from(logits[token as usize] - top)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_logits_lose_the_logarithm_of_their_number() {
        assert!((loss(&[7.0; 8], 3) - 8f64.ln()).abs() < 1e-12);
        assert!(loss(&[100.0, -100.0], 0) < 1e-9);
        assert!((loss(&[100.0, -100.0], 1) - 200.0).abs() < 1e-9);
    }
}
