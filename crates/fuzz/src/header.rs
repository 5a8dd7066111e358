//! GGUF files: the header, and the tokenizer of one that is sound. With the whole file at hand the reader never asks
//! for more of it, and what it accepts lies inside.

use engine::Tokenizer;
use gguf::Error;

pub(crate) fn run(bytes: &[u8]) {
    // As from a stream whose end is not known.
    let open = gguf::read_header(bytes, None);
    match gguf::read_header(bytes, Some(bytes.len() as u64)) {
        Ok(header) => {
            assert!(open.is_ok());
            assert!(header.file_bytes() <= bytes.len() as u64);
            if header.metadata.get("tokenizer.ggml.model").is_some()
                && let Err(error) = Tokenizer::from_metadata(&header.metadata)
            {
                assert!(!error.to_string().is_empty());
            }
        }
        Err(error) => {
            assert!(!matches!(error, Error::Incomplete { .. }), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}
