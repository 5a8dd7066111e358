//! Why a conversion or a split was refused, with the file, tensor or key at fault.
//! It must not know how errors are shown.

use std::io;
use std::path::PathBuf;

use gguf::Dtype;

/// Everything that can go wrong in this crate. Each message is complete: causes are part of it, not chained to it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("{path}: {error}")]
    Json {
        path: PathBuf,
        error: serde_json::Error,
    },
    /// A file's own structure is broken or beyond the limits.
    #[error("{path}: {problem}")]
    File { path: PathBuf, problem: String },
    #[error("{0} holds no .safetensors file")]
    NoWeights(PathBuf),
    #[error("tensor '{0}' is missing from the safetensors files; download the model again")]
    MissingTensor(String),
    #[error("tensor '{tensor}' has shape {found:?} where config.json asks for {wanted:?}")]
    Shape {
        tensor: String,
        found: Vec<u64>,
        wanted: Vec<u64>,
    },
    #[error(
        "tensor '{tensor}' is stored as {dtype}, which cannot be read; convert it to BF16 first"
    )]
    SourceType { tensor: String, dtype: String },
    #[error(
        "tensor '{0}' is not part of this architecture; nothing is dropped silently, so the conversion stops"
    )]
    UnknownTensor(String),
    #[error("tensor '{0}' holds values that are not finite")]
    NotFinite(String),
    #[error("there is no encoder for {0}; choose F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0 or Q5_1")]
    TargetType(Dtype),
    /// A value of config.json that the GGUF layout cannot express or the limits forbid.
    #[error("config.json: {0}")]
    Config(String),
    #[error("the tokenizer files are inconsistent: {0}")]
    Tokenizer(String),
    #[error(
        "{shards} shards are impossible: the model has {tensors} tensors and 1 to {limit} shards are allowed"
    )]
    Shards {
        shards: u32,
        tensors: usize,
        limit: u32,
    },
    #[error(transparent)]
    Header(#[from] gguf::Error),
    #[error(transparent)]
    Set(#[from] gguf::shard::ShardError),
    #[error("{path}: {error}")]
    Write {
        path: PathBuf,
        error: gguf::write::WriteError,
    },
}

impl Error {
    /// Wraps an I/O error with the path at hand.
    pub(crate) fn io(path: &std::path::Path) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::Io {
            path: path.to_owned(),
            error,
        }
    }
}
