//! The arguments that every command has which computes with a model once and prints numbers.
//! It must not know what is computed.

use std::path::Path;

use anyhow::Context;
use engine::{ActivationType, CacheType, Compat, Options};

/// How to compute.
#[derive(Debug, clap::Args)]
pub(crate) struct ModelArgs {
    /// Worker threads; all cores without it.
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
    /// How the KV cache is stored: f32 as for references, or f16 or q8_0 to see what they cost.
    #[arg(long, visible_alias = "cache-type-k", value_name = "TYPE", default_value_t = CacheType::F32)]
    cache_type: CacheType,
    /// What activations are rounded to before a product with quantized weights: f32 (nothing), or int8 as served.
    #[arg(long, value_name = "TYPE", default_value_t = ActivationType::F32)]
    activations: ActivationType,
    /// Reproduce what another engine does differently from the model's own code: llama.cpp.
    #[arg(long, value_name = "ENGINE")]
    compat: Option<Compat>,
}

impl ModelArgs {
    /// Options for a model at `path`, with `context` tokens.
    pub(crate) fn options(&self, path: &Path, context: Option<u32>) -> Options {
        Options {
            context,
            threads: self.threads,
            cache_type: self.cache_type,
            compat: self.compat,
            activations: self.activations,
            ..Options::new(path)
        }
    }
}

/// A text and the windows it is read in, as llama-perplexity has them.
#[derive(Debug, clap::Args)]
pub(crate) struct TextArgs {
    /// Tokens per window.
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    pub(crate) ctx_size: u32,
    /// Windows at most; all of the text without it.
    #[arg(long, value_name = "N")]
    pub(crate) chunks: Option<u32>,
}

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// A text of a file.
pub(crate) fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
