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
    /// The tokenizer data in the file cannot be used.
    #[error("the file's tokenizer cannot be used: {0}")]
    Tokenizer(String),
    /// The chat template in the file is broken or refused the conversation.
    #[error("the chat template cannot render this conversation: {0}")]
    Template(String),
}
