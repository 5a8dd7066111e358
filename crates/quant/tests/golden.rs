//! Every decoder and encoder against blocks made by an independent implementation (see golden/generate.py): equal
//! bit for bit.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

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

fn check_decode(dtype: Dtype) {
    let blocks = read(&format!("{dtype}.blocks"));
    let expected = floats(&read(&format!("{dtype}.values")));
    let mut decoded = vec![f32::NAN; expected.len()];
    (kernels_on(dtype, Isa::Scalar).unwrap().dequantize)(&blocks, &mut decoded);
    for (index, (got, want)) in decoded.iter().zip(&expected).enumerate() {
        assert_eq!(
            got.to_bits(),
            want.to_bits(),
            "{dtype} value {index}: {got} for {want}"
        );
    }
}

#[test]
fn decoders() {
    for dtype in [
        Dtype::Q4_0,
        Dtype::Q4_1,
        Dtype::Q5_0,
        Dtype::Q5_1,
        Dtype::Q8_0,
        Dtype::Q2_K,
        Dtype::Q3_K,
        Dtype::Q4_K,
        Dtype::Q5_K,
        Dtype::Q6_K,
        Dtype::IQ4_NL,
        Dtype::IQ4_XS,
    ] {
        check_decode(dtype);
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
        let mut values = vec![0.0; 1 << 16];
        (kernels_on(dtype, Isa::Scalar).unwrap().dequantize)(&row, &mut values);
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
    assert!(kernels_on(Dtype::IQ1_S, Isa::Scalar).is_none());
    assert!(quantize(Dtype::Q4_K, &[0.0; 256]).is_none());
    assert!(quantize(Dtype::Q8_0, &[0.0; 33]).is_none());
    assert_eq!(quantize(Dtype::Q8_0, &[]), Some(Vec::new()));
}
