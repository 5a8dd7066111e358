//! What OpenAI clients get back for a generation: whole answers and stream chunks, for chat and for
//! text. It must not know how text comes about.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use engine::{FinishReason, Usage};
use serde::Serialize;

use crate::{
    choice::{Entry, Part, Whole},
    generate::Finish,
    logprobs::WireLogprobs,
    message::{Delta, WireMessage},
};

/// Which of OpenAI's two shapes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    Chat,
    Text,
}

/// What all parts of one answer have in common.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    shape: Shape,
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
    /// Choices per prompt: they share its tokens in the usage.
    n: usize,
    /// Whether every chunk has a place for the usage, as clients expect that ask for it.
    pub(crate) include_usage: bool,
}

/// A whole answer, or one chunk of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<WireChoice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<WireUsage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<WireTimings>,
}

#[derive(Debug, Serialize)]
struct WireChoice {
    index: usize,
    #[serde(flatten)]
    content: ChoiceContent,
    logprobs: Option<WireLogprobs>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum ChoiceContent {
    Message(WireMessage),
    Delta(Delta),
    Text(String),
}

#[derive(Debug, Serialize)]
struct WireUsage {
    prompt_tokens: u32,
    completion_tokens: u32,
    total_tokens: u32,
    prompt_tokens_details: PromptDetails,
}

#[derive(Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

/// llama-server's extra object, which benchmark tools read.
#[derive(Debug, Serialize)]
struct WireTimings {
    cache_n: u32,
    prompt_n: u32,
    prompt_ms: f64,
    prompt_per_token_ms: f64,
    prompt_per_second: f64,
    predicted_n: u32,
    predicted_ms: f64,
    predicted_per_token_ms: f64,
    predicted_per_second: f64,
}

impl Reply {
    pub(crate) fn new(shape: Shape, model: String, fingerprint: String, n: usize) -> Self {
        let prefix = match shape {
            Shape::Chat => "chatcmpl",
            Shape::Text => "cmpl",
        };
        Self {
            shape,
            id: format!("{prefix}-{}", unique()),
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |t| t.as_secs()),
            model,
            fingerprint,
            n,
            include_usage: false,
        }
    }

    /// The answer in one piece.
    pub(crate) fn whole(&self, choices: Vec<Whole>) -> Answer<'_> {
        let finishes: Vec<Finish> = choices
            .iter()
            .filter_map(|whole| whole.finish.clone())
            .collect();
        let single = match finishes.as_slice() {
            [only] => Some(timings(only)),
            _ => None,
        };
        let choices = choices.into_iter().enumerate();
        let choices = choices.map(|(index, whole)| WireChoice {
            index,
            finish_reason: (whole.finish.as_ref())
                .map(|finish| finish_reason(finish, whole.turn.calls.len())),
            logprobs: (whole.has_logprobs).then(|| WireLogprobs::new(self.shape, whole.entries)),
            content: match self.shape {
                Shape::Chat => ChoiceContent::Message(whole.turn.into()),
                Shape::Text => ChoiceContent::Text(whole.turn.content),
            },
        });
        Answer {
            object: match self.shape {
                Shape::Chat => "chat.completion",
                Shape::Text => "text_completion",
            },
            usage: Some(Some(self.sum(&finishes))),
            timings: single,
            ..self.chunk(choices.collect())
        }
    }

    /// A chat stream opens each choice with the role; a text stream has no such chunk.
    pub(crate) fn opening(&self, index: usize) -> Option<Answer<'_>> {
        (self.shape == Shape::Chat).then(|| {
            self.chunk(vec![WireChoice {
                index,
                content: ChoiceContent::Delta(Delta::opening()),
                logprobs: None,
                finish_reason: None,
            }])
        })
    }

    /// One piece of one choice.
    pub(crate) fn part(&self, index: usize, part: Part) -> Answer<'_> {
        let content = match self.shape {
            Shape::Chat => ChoiceContent::Delta(match part.said {
                Some(said) => Delta::new(said, part.calls),
                None => Delta::default(),
            }),
            Shape::Text => ChoiceContent::Text(match part.said {
                Some(engine::Part::Content(text)) => text,
                _ => String::new(),
            }),
        };
        let has_entries = part.entries.iter().any(|entry| self.shows(entry));
        let choice = WireChoice {
            index,
            content,
            logprobs: has_entries.then(|| WireLogprobs::new(self.shape, part.entries)),
            finish_reason: (part.finish.as_ref()).map(|finish| finish_reason(finish, part.calls)),
        };
        Answer {
            timings: part.finish.as_ref().map(timings),
            ..self.chunk(vec![choice])
        }
    }

    fn shows(&self, entry: &Entry) -> bool {
        self.shape == Shape::Text || !entry.is_end
    }

    /// The extra last chunk that `stream_options.include_usage` asks for.
    pub(crate) fn usage(&self, finishes: &[Finish]) -> Answer<'_> {
        Answer {
            usage: Some(Some(self.sum(finishes))),
            ..self.chunk(Vec::new())
        }
    }

    /// Usage over all choices, each prompt counted once.
    fn sum(&self, finishes: &[Finish]) -> WireUsage {
        let mut sum = Usage::default();
        for (index, finish) in finishes.iter().enumerate() {
            if index % self.n.max(1) == 0 {
                sum.prompt_tokens += finish.usage.prompt_tokens;
                sum.cached_tokens += finish.usage.cached_tokens;
            }
            sum.completion_tokens += finish.usage.completion_tokens;
        }
        usage(&sum)
    }

    fn chunk(&self, choices: Vec<WireChoice>) -> Answer<'_> {
        Answer {
            id: &self.id,
            object: match self.shape {
                Shape::Chat => "chat.completion.chunk",
                Shape::Text => "text_completion",
            },
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage: self.include_usage.then_some(None),
            timings: None,
        }
    }
}

fn finish_reason(finish: &Finish, calls: usize) -> &'static str {
    match finish.reason {
        FinishReason::Stop if calls > 0 => "tool_calls",
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    }
}

fn usage(usage: &Usage) -> WireUsage {
    WireUsage {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: usage.prompt_tokens.saturating_add(usage.completion_tokens),
        prompt_tokens_details: PromptDetails {
            cached_tokens: usage.cached_tokens,
        },
    }
}

/// A speed needs at least one token that took time by itself. The first token of an answer comes out of
/// the prompt's last pass, so it has no time of its own; and a prompt that was in the cache still puts
/// its last token through the model, which says nothing about how fast prompts are read.
fn timings(finish: &Finish) -> WireTimings {
    let Finish { usage, timings, .. } = finish;
    let prompt_n = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
    let is_cached = prompt_n <= 1 && usage.cached_tokens > 0;
    let predicted_n = usage.completion_tokens;
    let timed_prompt = if is_cached { 0 } else { prompt_n };
    let timed = predicted_n.saturating_sub(1);
    WireTimings {
        cache_n: usage.cached_tokens,
        prompt_n,
        prompt_ms: milliseconds(timings.prefill),
        prompt_per_token_ms: ratio(milliseconds(timings.prefill), f64::from(timed_prompt)),
        prompt_per_second: rate(timed_prompt, timings.prefill),
        predicted_n,
        predicted_ms: milliseconds(timings.decode),
        predicted_per_token_ms: ratio(milliseconds(timings.decode), f64::from(timed)),
        predicted_per_second: rate(timed, timings.decode),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rate(tokens: u32, time: Duration) -> f64 {
    ratio(f64::from(tokens), time.as_secs_f64())
}

/// 0 where nothing was measured: JSON has no infinity.
fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

/// Unique over processes by a random prefix and within one by a counter.
fn unique() -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!(
        "{:016x}{:08x}",
        *PROCESS,
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

#[cfg(test)]
mod tests {
    use engine::Timings;

    use super::*;

    fn of(prompt: u32, cached: u32, completion: u32, decode_ms: u64) -> WireTimings {
        timings(&Finish {
            reason: FinishReason::Stop,
            usage: Usage {
                prompt_tokens: prompt,
                cached_tokens: cached,
                completion_tokens: completion,
            },
            timings: Timings {
                queued: Duration::ZERO,
                prefill: Duration::from_millis(100),
                decode: Duration::from_millis(decode_ms),
            },
            end: None,
        })
    }

    #[test]
    fn one_token_out_of_the_cache_is_no_speed() {
        let fresh = of(20, 0, 6, 500);
        assert_eq!(fresh.prompt_per_second, 200.0);
        assert_eq!((fresh.predicted_per_second, fresh.predicted_n), (10.0, 6));
        let cached = of(20, 19, 1, 0);
        assert_eq!((cached.cache_n, cached.prompt_n), (19, 1));
        assert_eq!(cached.prompt_per_second, 0.0);
        assert_eq!(cached.predicted_per_second, 0.0);
        assert_eq!(of(1, 0, 1, 0).prompt_per_second, 10.0);
    }
}
