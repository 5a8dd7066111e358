//! What can be wrong with a GGUF header, a split set or a metadata value, in words a user can act on.
//! It must not know where the bytes came from: paths are added by the callers that have them.

use std::io;
use std::path::PathBuf;

use crate::dtype::Dtype;

/// Why a header was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The prefix ends inside the header; a caller that reads by range fetches more and tries again.
    #[error(
        "the header is longer than the {have} bytes read so far; at least {need_at_least} bytes are needed"
    )]
    Incomplete { have: u64, need_at_least: u64 },
    /// The whole file is shorter than what its header announces.
    #[error(
        "the file is truncated: {what} needs {need} bytes but the file has {file_len}; fetch it again"
    )]
    Truncated {
        what: String,
        need: u64,
        file_len: u64,
    },
    #[error("not a GGUF file: it begins with {found:02x?} and not with \"GGUF\"")]
    NotGguf { found: [u8; 4] },
    #[error("the file is big-endian GGUF; only little-endian files are supported")]
    BigEndian,
    #[error("GGUF version {0} is not supported (versions 2 and 3 are); convert the model again")]
    Version(u32),
    /// A count or length beyond the limits of [`crate::limits`].
    #[error("{what} is {value}, above the limit of {limit}; the header is damaged or hostile")]
    Limit {
        what: String,
        value: u64,
        limit: u64,
    },
    #[error("{what} is not valid UTF-8")]
    Utf8 { what: String },
    #[error("metadata key '{key}' has value type {id}, which GGUF does not define")]
    ValueType { key: String, id: u32 },
    #[error("metadata key '{key}' holds an array of arrays, which is not supported")]
    NestedArray { key: String },
    #[error("metadata key '{key}' holds {value} where a bool must be 0 or 1")]
    Bool { key: String, value: u8 },
    #[error("metadata key '{0}' appears twice")]
    DuplicateKey(String),
    #[error("general.alignment is {0}; it must be a power of two from 8 to 1048576")]
    Alignment(u32),
    #[error("tensor '{0}' appears twice")]
    DuplicateTensor(String),
    #[error("tensor '{tensor}' has type id {id}, which is {}", describe_unknown(*.id))]
    UnknownType { tensor: String, id: u32 },
    #[error("tensor '{tensor}' has {count} dimensions; 1 to 4 are allowed")]
    DimensionCount { tensor: String, count: u32 },
    #[error("tensor '{tensor}' has dimensions {dims:?}, which are zero or too large")]
    Dimensions { tensor: String, dims: Vec<u64> },
    #[error(
        "tensor '{tensor}' has rows of {row} values, which type {dtype} cannot hold (blocks of {block})"
    )]
    RowLength {
        tensor: String,
        row: u64,
        dtype: &'static str,
        block: usize,
    },
    #[error(
        "tensor '{tensor}' starts at {offset}, which is not a multiple of the alignment {alignment}"
    )]
    Misaligned {
        tensor: String,
        offset: u64,
        alignment: u64,
    },
    #[error("tensor '{tensor}' overlaps tensor '{other}'")]
    Overlap { tensor: String, other: String },
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    /// An error of a header with the file it belongs to.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: Box<Error> },
}

/// Why a metadata value cannot be used. Each variant names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("metadata key '{0}' is missing")]
    Missing(String),
    #[error("metadata key '{key}' holds {found} where {wanted} is needed")]
    Type {
        key: String,
        found: &'static str,
        wanted: &'static str,
    },
    #[error("metadata key '{key}' holds {value}, which is out of range for {wanted}")]
    Range {
        key: String,
        value: String,
        wanted: &'static str,
    },
}

/// What an id outside the table is, as far as can be told.
fn describe_unknown(id: u32) -> String {
    // The ik fork numbers a type whose rows it has interleaved 200 above the plain one.
    let plain = id
        .checked_sub(200)
        .filter(|id| *id > 1)
        .and_then(Dtype::from_id);
    match plain {
        Some(plain) => format!(
            "{plain} with interleaved rows (the ik fork's {plain}_R4 or {plain}_R8); use the file of plain {plain}"
        ),
        None => "not a known tensor type".to_owned(),
    }
}
