//! Hundreds of safetensors files with damaged headers, the same ones each time: the reader neither panics nor spends
//! memory out of proportion to the file, and its error names the file or a tensor. One test, so that nothing else
//! allocates.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;

use common::write_model;
use convert::from_safetensors;
use gguf::Dtype;
use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most bytes of memory per byte of the header, and beside that: buffers of the output, and the other files.
const PER_BYTE: usize = 64;
const BESIDE: usize = 8 << 20;

/// What the JSON of a header can be made of, and numbers that are no offsets.
const WORDS: [&str; 14] = [
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
];

#[test]
fn damaged_headers() {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    let path = dir.path().join("model-1-of-2.safetensors");
    let whole = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let (header, data) = whole[8..].split_at(length);
    let out = dir.path().join("out.gguf");

    let config = Config {
        cases: 600,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let change = (any::<Index>(), 0usize..20, select(&WORDS[..]));
    // One header in eight also announces another length than it has.
    let announced = prop_oneof![7 => Just(None), 1 => any::<u64>().prop_map(Some)];
    let check = runner.run(&(vec(change, 1..4), announced), |(changes, announced)| {
        let mut header = header.to_vec();
        for (at, removed, word) in changes {
            let at = at.index(header.len());
            let end = (at + removed).min(header.len());
            header.splice(at..end, word.bytes());
        }
        let announced = announced.unwrap_or(header.len() as u64);
        fs::write(
            &path,
            [&announced.to_le_bytes(), &header[..], data].concat(),
        )
        .unwrap();

        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let result = from_safetensors(dir.path(), "Micro", Dtype::F16, &out, &mut |_, _, _| {});
        let spent = MEMORY.peak_usage() - before;
        prop_assert!(
            spent <= PER_BYTE * header.len() + BESIDE,
            "{} bytes for {}",
            spent,
            header.len()
        );
        if let Err(error) = result {
            let words = error.to_string();
            let named = words.contains("-of-2.safetensors") || words.contains('\'');
            prop_assert!(named, "{}", words);
        }
        Ok(())
    });
    check.unwrap();
}
