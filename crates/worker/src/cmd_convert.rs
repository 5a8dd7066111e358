//! `kimi convert`: a Hugging Face model directory or a GGUF file to one GGUF file of a plain type.
//! It must not know formats; the `convert` crate does.

use std::path::PathBuf;

use clap::Args;
use gguf::Dtype;

/// Convert a Hugging Face model directory, or a GGUF file, to one GGUF file of a plain type.
#[derive(Args, Debug)]
pub(crate) struct ConvertArgs {
    /// Directory with config.json, tiktoken.model, tokenizer_config.json and *.safetensors; or a .gguf file
    #[arg(long, value_name = "DIR|FILE")]
    from: PathBuf,
    /// Type of the weights: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1
    #[arg(long = "type", value_name = "TYPE")]
    dtype: Dtype,
    /// File to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Model name to store in the file [default: the directory's name]
    #[arg(long)]
    name: Option<String>,
}

/// Converts, with one line per tensor in the log.
///
/// # Errors
/// When the source is incomplete or not supported, or a file cannot be read or written.
pub(crate) fn run(args: ConvertArgs) -> anyhow::Result<()> {
    let mut progress = |tensor: &str, done: usize, all: usize| {
        tracing::info!(tensor, done, all, "converted");
    };
    if args.from.is_dir() {
        let name = args.name.unwrap_or_else(|| directory_name(&args.from));
        convert::from_safetensors(&args.from, &name, args.dtype, &args.out, &mut progress)?;
    } else {
        anyhow::ensure!(
            args.name.is_none(),
            "--name is for safetensors; a GGUF keeps its own name"
        );
        convert::from_gguf(&args.from, args.dtype, &args.out, &mut progress)?;
    }
    println!("{}", args.out.display());
    Ok(())
}

fn directory_name(dir: &std::path::Path) -> String {
    let resolved = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    resolved.file_name().map_or("model".to_owned(), |name| {
        name.to_string_lossy().into_owned()
    })
}
