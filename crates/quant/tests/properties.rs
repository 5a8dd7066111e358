//! Properties of every type over random valid blocks and random values.
#![allow(clippy::unwrap_used)]

mod common;

use common::{READABLE, halves};
use gguf::Dtype;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use quant::{Isa, kernels_on, quantize};

/// Two blocks of random bytes with finite scales.
fn row() -> impl Strategy<Value = (Dtype, Vec<u8>)> {
    select(READABLE).prop_flat_map(|dtype| {
        let bytes = vec(any::<u8>(), 2 * dtype.block_bytes());
        (bytes, vec(-0.1f32..0.1, 4)).prop_map(move |(mut row, scales)| {
            for (block, scales) in row.chunks_mut(dtype.block_bytes()).zip(scales.chunks(2)) {
                for (offset, scale) in halves(dtype).iter().zip(scales) {
                    let half = quantize(Dtype::F16, &[*scale]).unwrap();
                    block[*offset..offset + 2].copy_from_slice(&half);
                }
            }
            (dtype, row)
        })
    })
}

proptest! {
    /// A dot product with a unit vector is the weight at its place, exactly, on every path.
    #[test]
    fn unit_vectors_pick_weights((dtype, row) in row(), place in any::<prop::sample::Index>()) {
        let n = 2 * dtype.block_values();
        let mut weights = vec![0.0; n];
        (kernels_on(dtype, Isa::Scalar).unwrap().dequantize)(&row, &mut weights);
        let place = place.index(n);
        prop_assume!(weights.iter().all(|weight| weight.is_finite()));
        let mut unit = vec![0.0; n];
        unit[place] = 1.0;
        for kernels in Isa::ALL.into_iter().filter_map(|isa| kernels_on(dtype, isa)) {
            let picked = (kernels.dot)(&row, &unit);
            // Fused multiply-add keeps bits that the reference rounds away. The terms that may cancel in a weight are
            // at most 0.1·63·15 (scale · sub-scale · level).
            let slack = weights[place].abs().max(100.0) * f32::EPSILON;
            prop_assert!((picked - weights[place]).abs() <= slack, "{} {:?}", dtype, kernels.isa);
        }
    }

    /// An encoder's error is at most half a step and the rounding of its scale to a half.
    #[test]
    fn encoders_are_near(values in vec(-8.0f32..8.0, 32)) {
        let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
        let spread = 2.0 * largest;
        for (dtype, step) in [
            (Dtype::Q8_0, largest / 127.0),
            (Dtype::Q5_0, largest / 16.0),
            (Dtype::Q5_1, spread / 31.0),
            (Dtype::Q4_0, largest / 8.0),
            (Dtype::Q4_1, spread / 15.0),
            (Dtype::F16, largest / 1024.0),
            (Dtype::BF16, largest / 128.0),
        ] {
            let row = quantize(dtype, &values).unwrap();
            let mut decoded = vec![0.0; 32];
            (kernels_on(dtype, Isa::Scalar).unwrap().dequantize)(&row, &mut decoded);
            // The value opposite to the extreme has no level of its own in Q4_0 and Q5_0: there it is a whole step.
            let steps = if matches!(dtype, Dtype::Q4_0 | Dtype::Q5_0) { 1.0 } else { 0.5 };
            let bound = steps * step + 2.0 * spread / 2048.0 + 1e-7;
            for (value, found) in values.iter().zip(&decoded) {
                prop_assert!((value - found).abs() <= bound, "{}: {} became {}", dtype, value, found);
            }
        }
    }

    /// Encoding what was decoded gives the same floats again where the extreme value pins the scale.
    #[test]
    fn q8_0_is_idempotent(values in vec(-8.0f32..8.0, 64)) {
        let decode = |row: &[u8]| {
            let mut decoded = vec![0.0; 64];
            (kernels_on(Dtype::Q8_0, Isa::Scalar).unwrap().dequantize)(row, &mut decoded);
            decoded
        };
        let once = quantize(Dtype::Q8_0, &values).unwrap();
        prop_assert_eq!(&quantize(Dtype::Q8_0, &decode(&once)).unwrap(), &once);
    }
}
