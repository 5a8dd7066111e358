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

use crate::generate::Finish;

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
}

/// A whole answer, or one chunk of a stream.
#[derive(Debug, Serialize)]
pub(crate) struct Answer<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<WireUsage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timings: Option<WireTimings>,
}

#[derive(Debug, Serialize)]
struct Choice {
    index: u32,
    #[serde(flatten)]
    content: ChoiceContent,
    logprobs: Option<()>,
    finish_reason: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum ChoiceContent {
    Message { role: &'static str, content: String },
    Delta(Delta),
    Text(String),
}

#[derive(Debug, Default, Serialize)]
struct Delta {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
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
    pub(crate) fn new(shape: Shape, model: String, fingerprint: String) -> Self {
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
        }
    }

    /// The answer in one piece.
    pub(crate) fn whole(&self, text: String, finish: &Finish) -> Answer<'_> {
        let content = match self.shape {
            Shape::Chat => ChoiceContent::Message {
                role: "assistant",
                content: text,
            },
            Shape::Text => ChoiceContent::Text(text),
        };
        Answer {
            object: match self.shape {
                Shape::Chat => "chat.completion",
                Shape::Text => "text_completion",
            },
            usage: Some(usage(&finish.usage)),
            timings: Some(timings(finish)),
            ..self.chunk(vec![choice(content, Some(finish.reason))])
        }
    }

    /// A chat stream opens with the role; a text stream has no such chunk.
    pub(crate) fn opening(&self) -> Option<Answer<'_>> {
        (self.shape == Shape::Chat).then(|| {
            let delta = Delta {
                role: Some("assistant"),
                content: Some(String::new()),
            };
            self.chunk(vec![choice(ChoiceContent::Delta(delta), None)])
        })
    }

    pub(crate) fn text(&self, text: String) -> Answer<'_> {
        let content = match self.shape {
            Shape::Chat => ChoiceContent::Delta(Delta {
                role: None,
                content: Some(text),
            }),
            Shape::Text => ChoiceContent::Text(text),
        };
        self.chunk(vec![choice(content, None)])
    }

    pub(crate) fn finish(&self, finish: &Finish) -> Answer<'_> {
        let content = match self.shape {
            Shape::Chat => ChoiceContent::Delta(Delta::default()),
            Shape::Text => ChoiceContent::Text(String::new()),
        };
        Answer {
            timings: Some(timings(finish)),
            ..self.chunk(vec![choice(content, Some(finish.reason))])
        }
    }

    /// The extra last chunk that `stream_options.include_usage` asks for.
    pub(crate) fn usage(&self, finish: &Finish) -> Answer<'_> {
        Answer {
            usage: Some(usage(&finish.usage)),
            ..self.chunk(Vec::new())
        }
    }

    fn chunk(&self, choices: Vec<Choice>) -> Answer<'_> {
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
            usage: None,
            timings: None,
        }
    }
}

fn choice(content: ChoiceContent, reason: Option<FinishReason>) -> Choice {
    let finish_reason = reason.map(|reason| match reason {
        FinishReason::Stop => "stop",
        FinishReason::Length => "length",
    });
    Choice {
        index: 0,
        content,
        logprobs: None,
        finish_reason,
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

fn timings(finish: &Finish) -> WireTimings {
    let Finish { usage, timings, .. } = finish;
    let prompt_n = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
    let predicted_n = usage.completion_tokens;
    WireTimings {
        cache_n: usage.cached_tokens,
        prompt_n,
        prompt_ms: timings.prefill.as_secs_f64() * 1e3,
        prompt_per_token_ms: ratio(timings.prefill.as_secs_f64() * 1e3, f64::from(prompt_n)),
        prompt_per_second: rate(prompt_n, timings.prefill),
        predicted_n,
        predicted_ms: timings.decode.as_secs_f64() * 1e3,
        predicted_per_token_ms: ratio(timings.decode.as_secs_f64() * 1e3, f64::from(predicted_n)),
        predicted_per_second: rate(predicted_n, timings.decode),
    }
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
