//! Every decoder and encoder against blocks made by an independent implementation (see golden/generate.py): equal
//! in every bit.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{decode, is_plain, readable};
use gguf::Dtype;
use quant::{Isa, kernels_on, quantize};

fn read(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk))
        .collect()
}

/// Decodes `NAME.blocks` and compares with `NAME.values`, or their like by other suffixes.
fn check_decode(dtype: Dtype, blocks: &str, values: &str) {
    let row = read(&format!("{dtype}.{blocks}"));
    let expected = floats(&read(&format!("{dtype}.{values}")));
    let decoded = decode(dtype, &row, expected.len());
    for (index, (got, want)) in decoded.iter().zip(&expected).enumerate() {
        // All are finite. Equal but for the sign of a zero: IQ3_KT's reference has negative ones.
        assert!(got == want, "{dtype} value {index}: {got} for {want}");
    }
}

#[test]
fn decoders() {
    for dtype in readable().into_iter().filter(|dtype| !is_plain(*dtype)) {
        check_decode(dtype, "blocks", "values");
    }
}

/// The types of the ik fork have rows by its quantizer too: golden/generate_ik.py.
#[test]
fn decoders_of_the_ik_fork() {
    for dtype in readable().into_iter().filter(|dtype| dtype.id() >= 133) {
        check_decode(dtype, "quantized", "quantized-values");
    }
}

#[test]
fn encoders() {
    let values = floats(&read("encode.values"));
    for dtype in [
        Dtype::F16,
        Dtype::BF16,
        Dtype::Q8_0,
        Dtype::Q4_0,
        Dtype::Q4_1,
        Dtype::Q5_0,
        Dtype::Q5_1,
    ] {
        let encoded = quantize(dtype, &values).unwrap();
        let expected = read(&format!("{dtype}.encoded"));
        let block = dtype.block_bytes();
        for (index, (got, want)) in encoded
            .chunks(block)
            .zip(expected.chunks(block))
            .enumerate()
        {
            assert_eq!(got, want, "{dtype} block {index}");
        }
        assert_eq!(encoded.len(), expected.len());
    }
}

/// Half and brain floats decode exactly for every one of their 65,536 bit patterns, not-a-number aside.
#[test]
fn all_sixteen_bit_floats() {
    for dtype in [Dtype::F16, Dtype::BF16] {
        let row: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let values = decode(dtype, &row, 1 << 16);
        let back = quantize(dtype, &values).unwrap();
        for (index, value) in values.iter().enumerate() {
            if !value.is_nan() {
                assert_eq!(
                    row[2 * index..][..2],
                    back[2 * index..][..2],
                    "{dtype} {index:#x}"
                );
            }
        }
    }
}

#[test]
fn the_absent_and_the_ragged() {
    assert!(kernels_on(Dtype::Q8_K, Isa::Scalar).is_none());
    assert!(quantize(Dtype::Q4_K, &[0.0; 256]).is_none());
    assert!(quantize(Dtype::Q8_0, &[0.0; 33]).is_none());
    assert_eq!(quantize(Dtype::Q8_0, &[]), Some(Vec::new()));
}
