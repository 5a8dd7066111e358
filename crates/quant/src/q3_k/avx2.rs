//! Q3_K products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::{blocks, plain};
use crate::int8::avx2::{self as int8, Shifted, Superblock};
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
    let xs = x.as_chunks::<8>().0.as_chunks::<4>().0.as_chunks::<8>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let d = x86::half(block.d);
        let hmask = x86::bytes32(&block.hmask);
        for (half, bytes) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            let bytes = x86::bytes32(bytes);
            for pair in 0..4 {
                let at = 4 * half + pair;
                let bit = _mm256_set1_epi8((1u8 << at).cast_signed());
                let present = _mm256_cmpeq_epi8(_mm256_and_si256(hmask, bit), bit);
                // q − 4: the two low bits where the third is set, four less elsewhere.
                let below = _mm256_andnot_si256(present, _mm256_set1_epi8(4));
                let levels = _mm256_sub_epi8(x86::bit_pairs(bytes, 2 * pair), below);
                let scales = [2 * at, 2 * at + 1].map(|sub| d * block.scale(sub));
                x86::add_affine_halves(&mut sums, levels, scales, [0.0; 2], &x[at]);
            }
        }
    }
    x86::sum4(sums)
}

products!(int8, |rows, x, out| int8::superblocks::<
    Block,
    Shifted<7, 16>,
>(rows, x, out, plain, |block, _| open(
    block
)));

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open(block: &Block) -> Superblock {
    let d = x86::half(block.d);
    let scales = int8::per_half(x86::bytes16(bytemuck::cast_ref(&block.scales())));
    let hmask = x86::bytes32(&block.hmask);
    let third = _mm256_set1_epi8(4);
    let mut levels = [_mm256_setzero_si256(); 8];
    for (group, levels) in levels.iter_mut().enumerate() {
        let bytes = x86::bytes32(&block.qs.as_chunks::<32>().0[group / 4]);
        let bit = _mm256_set1_epi8((1u8 << group).cast_signed());
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(hmask, bit), bit);
        let low = x86::bit_pairs(bytes, 2 * (group % 4));
        *levels = _mm256_or_si256(low, _mm256_and_si256(set, third));
    }
    Superblock {
        d,
        scales,
        offset: d,
        offsets: _mm256_mullo_epi16(scales, _mm256_set1_epi16(-4)),
        levels,
    }
}
