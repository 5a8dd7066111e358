//! Thousands of damaged files, the same ones each time: the reader neither panics nor spends memory out of proportion to
//! the file, and with the whole file at hand it never asks for more of it. One test, so that nothing else allocates.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use gguf::{Array, Dtype, Error, Metadata, TensorSpec, Value, Writer, read_header};
use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Most bytes of memory per byte of file, and beside that. A list of empty strings costs the most: 8 bytes in the file,
/// 24 in memory, and the list doubles as it grows.
const PER_BYTE: usize = 16;
const BESIDE: usize = 64 << 10;

#[derive(Clone, Debug)]
enum Damage {
    Overwrite(Index, u64, usize),
    Cut(Index),
    Repeat(Index, usize),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Damage::Overwrite(at, value, width) => {
                let at = at.index(bytes.len());
                let rest = &mut bytes[at..];
                let width = (*width).min(rest.len());
                rest[..width].copy_from_slice(&value.to_le_bytes()[..width]);
            }
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Repeat(at, count) => {
                let at = at.index(bytes.len());
                let piece: Vec<u8> = bytes[at..].iter().take(*count).copied().collect();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// Mostly numbers that counts, lengths, types and offsets are not.
fn damage() -> impl Strategy<Value = Damage> {
    let number = prop_oneof![
        select(vec![
            0,
            1,
            8,
            9,
            255,
            1 << 16,
            1 << 20,
            1 << 31,
            1 << 32,
            1 << 62,
            u64::MAX
        ]),
        any::<u64>(),
    ];
    prop_oneof![
        6 => (any::<Index>(), number, select(vec![1usize, 4, 8])).prop_map(|(at, value, width)| Damage::Overwrite(at, value, width)),
        1 => any::<Index>().prop_map(Damage::Cut),
        1 => (any::<Index>(), 1usize..300).prop_map(|(at, count)| Damage::Repeat(at, count)),
    ]
}

/// A header with every kind of value and a tensor of every type, and its data.
fn whole() -> Vec<u8> {
    let mut metadata = Metadata::new();
    metadata.set("general.name", Value::String("Kimi".into()));
    metadata.set("split.count", Value::U16(1));
    metadata.set("scale", Value::F32(2.827));
    metadata.set("norm", Value::Bool(true));
    metadata.set("tokens", Value::Array(Array::String(vec!["a".into(); 64])));
    metadata.set("types", Value::Array(Array::I32(vec![1; 64])));
    let spec = |dtype: &Dtype| TensorSpec {
        name: format!("blk.0.{dtype}.weight"),
        dims: vec![dtype.block_values() as u64, 2],
        dtype: *dtype,
    };
    let specs: Vec<TensorSpec> = Dtype::ALL.iter().map(spec).collect();
    let mut writer = Writer::new(Vec::new(), &metadata, &specs).unwrap();
    for spec in &specs {
        let bytes = spec.dtype.tensor_bytes(&spec.dims).unwrap();
        writer.append(&spec.name, &vec![7; bytes as usize]).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn damaged_files() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/header");
    let mut files = vec![whole()];
    for entry in fs::read_dir(corpus).unwrap() {
        files.push(fs::read(entry.unwrap().path()).unwrap());
    }
    for file in &files {
        assert!(read_header(file, Some(file.len() as u64)).is_ok());
    }
    let config = Config {
        cases: 6000,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let cases = (select(files), vec(damage(), 1..5));
    let check = runner.run(&cases, |(mut file, damage)| {
        for damage in damage {
            damage.apply(&mut file);
        }
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        let result = read_header(&file, Some(file.len() as u64));
        let spent = MEMORY.peak_usage() - before;
        prop_assert!(
            spent <= PER_BYTE * file.len() + BESIDE,
            "{} bytes for {}",
            spent,
            file.len()
        );
        match result {
            Ok(header) => prop_assert!(header.file_bytes() <= file.len() as u64),
            Err(error) => prop_assert!(!matches!(error, Error::Incomplete { .. }), "{}", error),
        }
        Ok(())
    });
    check.unwrap();
}
