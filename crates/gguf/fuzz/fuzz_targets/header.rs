//! Fuzzes the header reader: whatever the bytes, it must return; what it accepts must lie inside the file.
//! Run with `cargo +nightly fuzz run header` in crates/gguf.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = gguf::read_header(bytes, None);
    if let Ok(header) = gguf::read_header(bytes, Some(bytes.len() as u64)) {
        assert!(header.file_bytes() <= bytes.len() as u64);
    }
});
