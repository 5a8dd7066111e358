//! The Kimi forward pass on this machine: tokenizer, template, KV cache, sampling, scheduling.
//! It must not know HTTP, Kubernetes or where the files came from.
//!
//! Entry points: [`Engine::start`] loads a model and serves [`Request`]s sent through a [`Handle`];
//! [`perplexity()`] and [`Engine::self_test`] judge a model; `model.rs` is the forward pass, top to bottom.

#![deny(unsafe_code)]

mod answer;
mod api;
mod attention;
mod bench;
mod chat;
mod compare;
mod config;
mod constraint;
mod engine;
mod error;
mod eval;
mod ffn;
mod file_type;
mod files;
mod job;
mod kv_cache;
mod load;
mod logprobs;
mod memory;
mod model;
mod moe;
mod ops;
mod perplexity;
mod rope;
mod sampler;
mod scheduler;
mod selftest;
mod status;
mod template;
#[cfg(test)]
mod testing;
pub mod tokenizer;
mod turn;
#[allow(unsafe_code)]
mod weights;

pub use api::{
    ActivationType, Compat, Event, FinishReason, Handle, Info, Logprobs, Options, Progress,
    Request, Sampling, SubmitError, Timings, Usage,
};
pub use bench::{Bench, Work};
pub use chat::{ChatMessage, ToolCall};
pub use compare::{TensorComparison, TensorError, TextComparison, compare_tensors, compare_text};
pub use constraint::{AnswerFormat, CallableTool, Constraint};
pub use engine::Engine;
pub use error::Error;
pub use eval::{Distance, Judged, Position, Reference, Window, evaluate, reference};
pub use file_type::name as file_type_name;
pub use files::Files;
pub use memory::{
    Usage as MemoryUsage, limit as memory_limit, major_faults, usage as memory_usage,
};
pub use perplexity::{Perplexity, perplexity};
pub use selftest::{SelfTest, SelfTestError};
pub use sizing::CacheType;
pub use status::{SlotStatus, Status};
pub use template::{Rendering, Template, TemplateChoice};
pub use tokenizer::Tokenizer;
pub use turn::{Part, Turn, TurnParser};
