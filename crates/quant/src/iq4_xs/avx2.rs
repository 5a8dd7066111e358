//! IQ4_XS products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::{blocks, plain};
use crate::codebook;
use crate::each::each;
use crate::int8::avx2::{self as int8, Signed, Superblock};
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
    let mut sum = _mm256_setzero_ps();
    let xs = x.as_chunks::<8>().0.as_chunks::<4>().0.as_chunks::<8>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let d = x86::half(block.d);
        for (sub, x) in x.iter().enumerate() {
            let levels = x86::look_up(&codebook::IQ4_NL, x86::nibbles(&block.qs[sub]));
            let of_sub = x86::levels_dot(levels, x);
            sum = _mm256_fmadd_ps(_mm256_set1_ps(d * f32::from(block.scale(sub))), of_sub, sum);
        }
    }
    x86::sum(sum)
}

products!(int8, |rows, x, out| int8::superblocks::<
    Block,
    Signed<127, 32>,
>(rows, x, out, plain, |block, _| open(
    block
)));

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open(block: &Block) -> Superblock {
    let zero = _mm256_setzero_si256();
    let mut levels = [zero; 8];
    for (levels, qs) in levels.iter_mut().zip(&block.qs) {
        *levels = x86::look_up(&codebook::IQ4_NL, x86::nibbles(qs));
    }
    Superblock {
        d: x86::half(block.d),
        scales: int8::per_group(each!(8, |sub| block.scale(sub))),
        offset: 0.0,
        offsets: zero,
        levels,
    }
}
