//! Q4_0 products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::blocks;
use crate::int8::avx2::{Signed, Smallblock};
use crate::int8::paths::products;
use crate::int8::{Activations, Rows};
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2(row, x) }
}

/// The 32 values q − 8, in −8..7.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn levels(block: &Block) -> __m256i {
    _mm256_sub_epi8(x86::nibbles(&block.qs), _mm256_set1_epi8(8))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(row: &[u8], x: &[f32]) -> f32 {
    let mut sum = _mm256_setzero_ps();
    let xs = x.as_chunks::<8>().0.as_chunks::<4>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let of_block = x86::levels_dot(levels(block), x);
        sum = _mm256_fmadd_ps(_mm256_set1_ps(x86::half(block.d)), of_block, sum);
    }
    x86::sum(sum)
}

products!(
    int8,
    |rows, x, out| int8::smallblocks::<Block, Signed<8, 32>>(rows, x, out, |block| Smallblock {
        d: x86::half(block.d),
        offset: 0.0,
        levels: levels(block),
    })
);
