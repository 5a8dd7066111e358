//! `kimi perplexity`: how surprised a model is by a text, in one line. It must not know how that is
//! computed; the engine does.

use std::path::PathBuf;

use anyhow::Context;
use engine::{Options, Progress};

/// Arguments of `kimi perplexity`.
#[derive(Debug, clap::Args)]
pub(crate) struct PerplexityArgs {
    /// Model: a .gguf file, the first shard of a set, or a directory holding one model.
    #[arg(short, long, value_name = "PATH")]
    model: PathBuf,
    /// Text to judge.
    #[arg(short, long, value_name = "TEXT")]
    file: PathBuf,
    /// Tokens per window.
    #[arg(short, long, value_name = "TOKENS", default_value_t = 512)]
    ctx_size: u32,
    /// Windows at most; all of the text without it.
    #[arg(long, value_name = "N")]
    chunks: Option<u32>,
    /// Worker threads; all cores without it.
    #[arg(short, long, value_name = "N")]
    threads: Option<usize>,
}

/// Prints `perplexity: X +/- Y`.
pub(crate) fn run(args: &PerplexityArgs) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(&args.file)
        .with_context(|| format!("cannot read {}", args.file.display()))?;
    let options = Options {
        context: Some(args.ctx_size),
        threads: args.threads,
        ..Options::new(&args.model)
    };
    let result = engine::perplexity(
        &options,
        &text,
        args.ctx_size,
        args.chunks,
        &Progress::new(),
    )?;
    println!("perplexity: {result}");
    Ok(())
}
