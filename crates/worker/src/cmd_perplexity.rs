//! `kimi perplexity`: how surprised a model is by a text, in one line. It must not know how that is
//! computed; the engine does.

use std::path::PathBuf;

use engine::Progress;
use serde_json::json;

use crate::model_args::{self, ModelArgs, Output, TextArgs};

/// Arguments of `kimi perplexity`.
#[derive(Debug, clap::Args)]
pub(crate) struct PerplexityArgs {
    /// Model: a .gguf file, the first shard of a set, or a directory holding one model.
    #[arg(short, long, value_name = "PATH")]
    model: PathBuf,
    /// Text to judge.
    #[arg(short, long, value_name = "TEXT")]
    file: PathBuf,
    #[command(flatten)]
    text: TextArgs,
    #[command(flatten)]
    how: ModelArgs,
    /// How to print it.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// Prints `perplexity: X +/- Y`, or the same as JSON.
pub(crate) fn run(args: &PerplexityArgs) -> anyhow::Result<()> {
    let text = model_args::read(&args.file)?;
    let TextArgs { ctx_size, chunks } = args.text;
    let result = engine::perplexity(
        &args.how.options(&args.model, Some(ctx_size)),
        &text,
        ctx_size,
        chunks,
        &Progress::new(),
    )?;
    match args.output {
        Output::Table => println!("perplexity: {result}"),
        Output::Json => println!(
            "{:#}",
            json!({"perplexity": result.value, "error": result.error, "tokens": result.tokens})
        ),
    }
    Ok(())
}
