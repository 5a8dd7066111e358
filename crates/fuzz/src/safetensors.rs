//! Safetensors files: what the header lists lies inside the file, or the error names the file.

use std::path::Path;

use convert::safetensors::read_header;

/// What the JSON of a header can be made of, and numbers that are no offsets.
pub(crate) const WORDS: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "\"",
    ",",
    ":",
    "-1",
    "0",
    "1e999",
    "18446744073709551615",
    "9",
    "null",
    "\"I64\"",
    "\"BF16\"",
    "\"data_offsets\":[0,8]",
    "\"shape\":[4294967296,4294967296]",
    "\"__metadata__\":{}",
    "\\ud800",
];

pub(crate) fn run(bytes: &[u8]) {
    let path = Path::new("weights.safetensors");
    match read_header(bytes, bytes.len() as u64, path) {
        Ok(tensors) => {
            for (name, tensor) in tensors {
                let end = tensor.offset.checked_add(tensor.bytes);
                assert!(end.is_some_and(|end| end <= bytes.len() as u64), "{name}");
            }
        }
        Err(error) => {
            let words = error.to_string();
            assert!(words.contains("weights.safetensors"), "{words}");
        }
    }
}
