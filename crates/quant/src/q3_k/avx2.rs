//! Q3_K dot product with AVX2. It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::blocks;
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
