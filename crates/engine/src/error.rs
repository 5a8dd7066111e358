//! Everything that can go wrong between a path and a served token, worded for the person who has to
//! fix it. It must not know exit codes or HTTP statuses.

use std::path::PathBuf;

/// An error of the engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No model at the path.
    #[error("no model at {path}: {detail}")]
    ModelNotFound {
        /// Where it was looked for.
        path: PathBuf,
        /// What was found instead.
        detail: String,
    },
    /// A header cannot be read; the message names the file.
    #[error(transparent)]
    Header(#[from] gguf::Error),
    /// The files do not form one whole model.
    #[error(transparent)]
    Shards(#[from] gguf::shard::ShardError),
    /// A file cannot be opened or mapped.
    #[error("cannot map {path}: {source}")]
    Map {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A metadata key is missing or holds nonsense.
    #[error("{0}; the file is not a whole Kimi model, convert or fetch it again")]
    Metadata(#[from] gguf::MetadataError),
    /// The model is of another family.
    #[error(
        "the model's architecture is '{found}', but this engine runs 'deepseek2', the architecture \
         of Kimi-K2, Moonlight and Kimi-VL's text model; choose one of these"
    )]
    WrongArchitecture {
        /// `general.architecture`.
        found: String,
    },
    /// A hyperparameter is beyond what the engine can run.
    #[error("metadata key '{key}' is {found}; {wanted}")]
    Hyperparameter {
        /// The key in the file.
        key: String,
        /// Its value.
        found: String,
        /// What would work.
        wanted: String,
    },
    /// A tensor's type has no kernels.
    #[error(
        "tensor '{tensor}' is of type {dtype}, which this engine cannot read yet; choose another \
         quant of the model"
    )]
    UnsupportedTensorType {
        /// Tensor name.
        tensor: String,
        /// Name of the type.
        dtype: &'static str,
    },
    /// A tensor that the architecture needs is not there.
    #[error("tensor '{0}' is missing; the file is not a whole deepseek2 model")]
    MissingTensor(String),
    /// A tensor has another shape than the hyperparameters say.
    #[error("tensor '{tensor}' has shape {found:?} where the metadata asks for {wanted:?}")]
    Shape {
        /// Tensor name.
        tensor: String,
        /// Dimensions in the file, row length first.
        found: Vec<u64>,
        /// Dimensions the hyperparameters imply.
        wanted: Vec<u64>,
    },
    /// The context asked for is longer than the model's own.
    #[error(
        "a context of {asked} tokens was asked for, but the model was made for at most {most}; set contextLength to {most} or less"
    )]
    ContextTooLong {
        /// Tokens asked for.
        asked: u32,
        /// Tokens the model allows.
        most: u32,
    },
    /// The KV cache alone is larger than the memory.
    #[error(
        "{slots} slots of {context} tokens need {needed} bytes of KV cache, and this process may use \
         {limit} bytes of memory; lower contextLength or the number of slots"
    )]
    CacheTooLarge {
        /// Requests served at the same time.
        slots: usize,
        /// Tokens per slot.
        context: u32,
        /// Bytes of cache.
        needed: u64,
        /// Bytes of memory.
        limit: u64,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Options(String),
    /// The tokenizer data in the file cannot be used.
    #[error("the file's tokenizer cannot be used: {0}")]
    Tokenizer(String),
    /// The chat template in the file is broken or refused the conversation.
    #[error("the chat template cannot render this conversation: {0}")]
    Template(String),
    /// An answer cannot be held to the format asked for.
    #[error("the answer cannot be held to this format: {0}")]
    Constraint(String),
    /// Threads or memory could not be had.
    #[error("cannot start: {0}")]
    Resources(String),
    /// The text to judge is too short.
    #[error("{0}")]
    Text(String),
}

impl Error {
    /// One CamelCase word for status conditions and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::ModelNotFound { .. } => "ModelNotFound",
            Self::Header(error) => header_reason(error),
            Self::Shards(gguf::shard::ShardError::NoModel(_)) => "ModelNotFound",
            Self::Shards(gguf::shard::ShardError::Missing { .. }) => "MissingShard",
            Self::WrongArchitecture { .. } => "WrongArchitecture",
            Self::UnsupportedTensorType { .. } => "UnsupportedTensorType",
            Self::ContextTooLong { .. } | Self::CacheTooLarge { .. } => "ContextTooLong",
            Self::Shards(_)
            | Self::Map { .. }
            | Self::Metadata(_)
            | Self::Hyperparameter { .. }
            | Self::MissingTensor(_)
            | Self::Shape { .. }
            | Self::Options(_)
            | Self::Tokenizer(_)
            | Self::Template(_)
            | Self::Constraint(_)
            | Self::Resources(_)
            | Self::Text(_) => "LoadFailed",
        }
    }
}

fn header_reason(error: &gguf::Error) -> &'static str {
    match error {
        gguf::Error::File { source, .. } => header_reason(source),
        gguf::Error::NotGguf { .. } => "NotGguf",
        gguf::Error::UnknownType { .. } => "UnsupportedTensorType",
        _ => "LoadFailed",
    }
}
