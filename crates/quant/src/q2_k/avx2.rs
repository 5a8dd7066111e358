//! Q2_K products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::{blocks, plain};
use crate::int8::avx2::{self as int8, Affine, Superblock};
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
        let (d, dmin) = (x86::half(block.d), x86::half(block.dmin));
        for (half, bytes) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            let bytes = x86::bytes32(bytes);
            for pair in 0..4 {
                let at = 4 * half + pair;
                let packed = [block.scales[2 * at], block.scales[2 * at + 1]];
                let scales = packed.map(|byte| d * f32::from(byte & 15));
                let offsets = packed.map(|byte| -(dmin * f32::from(byte >> 4)));
                let levels = x86::bit_pairs(bytes, 2 * pair);
                x86::add_affine_halves(&mut sums, levels, scales, offsets, &x[at]);
            }
        }
    }
    x86::sum4(sums)
}

products!(int8, |rows, x, out| int8::superblocks::<
    Block,
    Affine<3, 16, 15>,
>(rows, x, out, plain, |block, _| open(
    block
)));

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open(block: &Block) -> Superblock {
    let packed = x86::bytes16(&block.scales);
    let nibble = _mm_set1_epi8(15);
    let mut levels = [_mm256_setzero_si256(); 8];
    for (group, levels) in levels.iter_mut().enumerate() {
        let bytes = x86::bytes32(&block.qs.as_chunks::<32>().0[group / 4]);
        *levels = x86::bit_pairs(bytes, 2 * (group % 4));
    }
    Superblock {
        d: x86::half(block.d),
        scales: int8::per_half(_mm_and_si128(packed, nibble)),
        offset: -x86::half(block.dmin),
        offsets: int8::per_half(_mm_and_si128(_mm_srli_epi16::<4>(packed), nibble)),
        levels,
    }
}
