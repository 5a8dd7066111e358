//! What the tests share: which types there are to test, and random valid rows of any of them. It must not know layouts:
//! a row of random bytes is valid when it decodes to sane numbers.
// Each file of tests uses a part of it.
#![allow(dead_code, clippy::unwrap_used)]

use gguf::Dtype;
use quant::{Isa, kernels, kernels_on};

/// A small generator (xorshift64*), so that failures repeat.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Uniform in −1..1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = (self.next() >> 56) as u8;
        }
    }
}

/// Every type that has kernels.
pub(crate) fn readable() -> Vec<Dtype> {
    let all = Dtype::ALL.iter().copied();
    all.filter(|dtype| kernels(*dtype).is_some()).collect()
}

/// Floats that are stored as they are.
pub(crate) fn is_plain(dtype: Dtype) -> bool {
    dtype.block_values() == 1
}

/// A row by the scalar reference.
pub(crate) fn decode(dtype: Dtype, row: &[u8], values: usize) -> Vec<f32> {
    let mut decoded = vec![f32::NAN; values];
    (kernels_on(dtype, Isa::Scalar).unwrap().dequantize)(row, &mut decoded);
    decoded
}

/// A row of random valid blocks: random bytes, drawn again while the block's values are not finite, above `largest`, or
/// all so small that sums of their products with numbers below 1 round as subnormal numbers do.
pub(crate) fn random_row(
    dtype: Dtype,
    values: usize,
    largest: f32,
    random: &mut Random,
) -> Vec<u8> {
    if is_plain(dtype) {
        let floats: Vec<f32> = (0..values).map(|_| largest * random.float()).collect();
        return quant::quantize(dtype, &floats).unwrap();
    }
    let mut row = vec![0; dtype.row_prefix_bytes()];
    // The first block decides, with it, whether the row's prefix is one that a sane row has.
    for index in 0..values / dtype.block_values() {
        let mut block = vec![0; dtype.block_bytes()];
        loop {
            if index == 0 {
                random.fill(&mut row);
            }
            random.fill(&mut block);
            let alone = [&row[..dtype.row_prefix_bytes()], &block].concat();
            let magnitude = decode(dtype, &alone, dtype.block_values())
                .into_iter()
                // A comparison with what is not a number is false.
                .try_fold(0.0f32, |max, v| {
                    (v.abs() <= largest).then_some(max.max(v.abs()))
                });
            if magnitude.is_some_and(|most| most == 0.0 || most > 1e-12) {
                break;
            }
        }
        row.extend(block);
    }
    row
}
