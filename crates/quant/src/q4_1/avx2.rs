//! Q4_1 products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::blocks;
use crate::int8::avx2::{Affine, Smallblock};
use crate::int8::paths::products;
use crate::int8::{Activations, Rows};
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2(row, x) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let xs = x.as_chunks::<8>().0.as_chunks::<4>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        x86::add_affine(
            &mut sums,
            x86::nibbles(&block.qs),
            x86::half(block.d),
            x86::half(block.m),
            x,
        );
    }
    x86::sum4(sums)
}

products!(int8, |rows, x, out| int8::smallblocks::<
    Block,
    Affine<15, 32>,
>(rows, x, out, |block| Smallblock {
    d: x86::half(block.d),
    offset: x86::half(block.m),
    levels: x86::nibbles(&block.qs),
}));
