//! libFuzzer's door to the target of this name; what is checked is written in the `fuzz` crate.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (fuzz::BODY.run)(bytes));
