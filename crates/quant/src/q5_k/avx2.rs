//! Q5_K products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::{blocks, plain};
use crate::int8::avx2::{self as int8, Affine, Superblock};
use crate::int8::paths::products;
use crate::int8::{Activations, Rows};
use crate::k_scales;
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
    let nibble = _mm256_set1_epi8(15);
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let (d, dmin) = (x86::half(block.d), x86::half(block.dmin));
        let scales = k_scales::unpack(&block.scales);
        let fifths = x86::bytes32(&block.qh);
        for (group, bytes) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            let bytes = x86::bytes32(bytes);
            let low = _mm256_and_si256(bytes, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            for (sub, nibbles) in [(2 * group, low), (2 * group + 1, high)] {
                let mask = _mm256_set1_epi8((1u8 << sub).cast_signed());
                let present = _mm256_cmpeq_epi8(_mm256_and_si256(fifths, mask), mask);
                let levels =
                    _mm256_or_si256(nibbles, _mm256_and_si256(present, _mm256_set1_epi8(16)));
                let scale = d * f32::from(scales[sub].0);
                let minimum = dmin * f32::from(scales[sub].1);
                x86::add_affine(&mut sums, levels, scale, -minimum, &x[sub]);
            }
        }
    }
    x86::sum4(sums)
}

products!(int8, |rows, x, out| int8::superblocks::<
    Block,
    Affine<31, 32>,
>(rows, x, out, plain, |block, _| open(
    block
)));

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open(block: &Block) -> Superblock {
    let (scales, minimums) = k_scales::unpack_apart(&block.scales);
    let nibble = _mm256_set1_epi8(15);
    let fifth = _mm256_set1_epi8(16);
    let high = x86::bytes32(&block.qh);
    let mut levels = [nibble; 8];
    for (sub, levels) in levels.iter_mut().enumerate() {
        let bytes = x86::bytes32(&block.qs.as_chunks::<32>().0[sub / 2]);
        // 16-bit shifts move bits between bytes; the masks drop those.
        let low = if sub % 2 == 0 {
            bytes
        } else {
            _mm256_srli_epi16::<4>(bytes)
        };
        let bit = _mm256_set1_epi8((1u8 << sub).cast_signed());
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(high, bit), bit);
        *levels = _mm256_or_si256(_mm256_and_si256(low, nibble), _mm256_and_si256(set, fifth));
    }
    Superblock {
        d: x86::half(block.d),
        scales: int8::per_group(bytemuck::cast(scales)),
        offset: -x86::half(block.dmin),
        offsets: int8::per_group(bytemuck::cast(minimums)),
        levels,
    }
}
