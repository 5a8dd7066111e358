//! Properties of every type over random valid blocks and random values.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Random, decode, random_row, readable};
use gguf::Dtype;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use quant::{Isa, kernels_on, quantize};

/// A random valid row of two blocks.
fn row() -> impl Strategy<Value = (Dtype, Vec<u8>)> {
    (select(readable()), 1..u64::MAX).prop_map(|(dtype, seed)| {
        let values = 2 * dtype.block_values();
        (dtype, random_row(dtype, values, 16.0, &mut Random(seed)))
    })
}

proptest! {
    /// A dot product with a unit vector is the weight at its place, exactly, on every path.
    #[test]
    fn unit_vectors_pick_weights((dtype, row) in row(), place in any::<prop::sample::Index>()) {
        let n = 2 * dtype.block_values();
        let weights = decode(dtype, &row, n);
        let place = place.index(n);
        let mut unit = vec![0.0; n];
        unit[place] = 1.0;
        for kernels in Isa::ALL.into_iter().filter_map(|isa| kernels_on(dtype, isa)) {
            let picked = (kernels.dot)(&row, &unit);
            // Fused multiply-add keeps bits that the reference rounds away. Weights are at most 16, so the terms that
            // may cancel in one are below 100.
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
            let decoded = decode(dtype, &row, 32);
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
        let once = quantize(Dtype::Q8_0, &values).unwrap();
        let decoded = decode(Dtype::Q8_0, &once, 64);
        prop_assert_eq!(&quantize(Dtype::Q8_0, &decoded).unwrap(), &once);
    }
}
