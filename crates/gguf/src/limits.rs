//! The reader's limits: a header beyond any of them is refused before memory is spent on it.
//! Each is several times what the largest published model needs.

/// Tensors in one file. Kimi-K2 has 1,096 (1,157 in files of the ik fork).
pub const TENSORS: u64 = 65_536;
/// Metadata keys in one file. Published files have about 60.
pub const METADATA_KEYS: u64 = 4_096;
/// Bytes of a metadata key or a tensor name; GGUF itself allows 65,535 and ggml 64.
pub const NAME_BYTES: u64 = 1_024;
/// Bytes of one string value. The longest in use are chat templates, below 100 kB.
pub const STRING_BYTES: u64 = 4 << 20;
/// Elements of one array. Kimi's vocabulary has 163,840.
pub const ARRAY_ELEMENTS: u64 = 1 << 20;
/// Elements of all arrays of a file together; bounds the memory of a header of empty strings.
pub const ALL_ARRAY_ELEMENTS: u64 = 3 << 20;
/// Bytes of the whole header. Kimi-K2's is about 7 MB.
pub const HEADER_BYTES: u64 = 64 << 20;
/// Largest `general.alignment`.
pub const ALIGNMENT: u32 = 1 << 20;
/// Shards of one model. Sets of 1,097 (one tensor each) are published.
pub const SHARDS: u32 = 4_096;
