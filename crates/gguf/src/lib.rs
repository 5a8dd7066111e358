//! GGUF, the file format of quantized models: its tensor types, a bounded header reader, a streaming writer and split
//! sets. It must not know any model's architecture nor how a tensor type is decoded.
//!
//! A file is, all little-endian: magic `GGUF`, u32 version, u64 tensor count, u64 metadata count, the metadata
//! (`string key, u32 type, value`), the tensor table (`string name, u32 n, n × u64 dims, u32 type, u64 offset`),
//! zeros up to a multiple of the alignment, then the data section in which each tensor starts at its offset. A string
//! is a u64 length and UTF-8 bytes. Format reference: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.
//!
//! Every number in a header is hostile until checked: the reader refuses what is beyond [`limits`] before it
//! allocates, and afterwards no sum or product of a [`TensorInfo`] can overflow.

#![forbid(unsafe_code)]

mod cursor;
pub mod dtype;
pub mod error;
pub mod limits;
pub mod metadata;
pub mod read;
pub mod shard;
pub mod write;

pub use dtype::Dtype;
pub use error::{Error, MetadataError};
pub use metadata::{Array, Metadata, Value};
pub use read::{Header, TensorInfo, open_header, read_header};
pub use shard::ShardName;
pub use write::{TensorSpec, Writer};
