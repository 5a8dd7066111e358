//! `kimi split`: a GGUF model into shards. It must not know the format; the `convert` crate does.

use std::path::PathBuf;

use clap::Args;

/// Split a GGUF model into shards.
#[derive(Args, Debug)]
pub(crate) struct SplitArgs {
    /// Model to split: a .gguf file, or the first shard of one that is split already
    #[arg(long = "in", value_name = "FILE")]
    input: PathBuf,
    /// Shards are written as PREFIX-00001-of-0000N.gguf
    #[arg(long, value_name = "PREFIX")]
    out_prefix: PathBuf,
    /// Number of shards
    #[arg(long, value_name = "N")]
    shards: u32,
}

/// Splits and prints the paths written.
///
/// # Errors
/// When the input is not a whole model, the number of shards is impossible, or a file cannot be written.
pub(crate) fn run(args: SplitArgs) -> anyhow::Result<()> {
    for path in convert::split(&args.input, &args.out_prefix, args.shards)? {
        println!("{}", path.display());
    }
    Ok(())
}
