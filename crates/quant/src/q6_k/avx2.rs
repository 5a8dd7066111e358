//! Q6_K products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::{blocks, plain};
use crate::each::each;
use crate::int8::avx2::{self as int8, Shifted, Superblock};
use crate::int8::paths::products;
use crate::int8::{Activations, Rows};
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2(row, x) }
}

/// The 128 values q − 32 of one half block, in order. They lie in −32..31, so bytes do not overflow.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn levels(ql: &[u8; 64], qh: &[u8; 32]) -> [__m256i; 4] {
    let offset = _mm256_set1_epi8(32);
    stored(ql, qh).map(|q| _mm256_sub_epi8(q, offset))
}

/// The 128 values q of one half block, in order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn stored(ql: &[u8; 64], qh: &[u8; 32]) -> [__m256i; 4] {
    let [first, second] = each!(2, |half| x86::bytes32(&ql.as_chunks::<32>().0[half]));
    let high = x86::bytes32(qh);
    let nibble = _mm256_set1_epi8(15);
    let pair = _mm256_set1_epi8(0x30);
    // 16-bit shifts move bits between bytes; the masks drop those.
    let low = [
        _mm256_and_si256(first, nibble),
        _mm256_and_si256(second, nibble),
        _mm256_and_si256(_mm256_srli_epi16::<4>(first), nibble),
        _mm256_and_si256(_mm256_srli_epi16::<4>(second), nibble),
    ];
    let high = [
        _mm256_and_si256(_mm256_slli_epi16::<4>(high), pair),
        _mm256_and_si256(_mm256_slli_epi16::<2>(high), pair),
        _mm256_and_si256(high, pair),
        _mm256_and_si256(_mm256_srli_epi16::<2>(high), pair),
    ];
    each!(4, |k| _mm256_or_si256(low[k], high[k]))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let xs = x.as_chunks::<8>().0.as_chunks::<4>().0.as_chunks::<8>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let d = x86::half(block.d);
        let halves = block
            .ql
            .as_chunks::<64>()
            .0
            .iter()
            .zip(block.qh.as_chunks::<32>().0);
        for (half, (ql, qh)) in halves.enumerate() {
            for (quarter, levels) in levels(ql, qh).into_iter().enumerate() {
                let at = 4 * half + quarter;
                let scales = [2 * at, 2 * at + 1].map(|sub| d * f32::from(block.scales[sub]));
                x86::add_affine_halves(&mut sums, levels, scales, [0.0; 2], &x[at]);
            }
        }
    }
    x86::sum4(sums)
}

products!(int8, |rows, x, out| int8::superblocks::<
    Block,
    Shifted<63, 16>,
>(rows, x, out, plain, |block, _| open(
    block
)));

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open(block: &Block) -> Superblock {
    let (ql, qh) = (block.ql.as_chunks::<64>().0, block.qh.as_chunks::<32>().0);
    let d = x86::half(block.d);
    let scales = int8::per_half(x86::bytes16(bytemuck::cast_ref(&block.scales)));
    let [first, second] = [stored(&ql[0], &qh[0]), stored(&ql[1], &qh[1])];
    Superblock {
        d,
        scales,
        offset: d,
        offsets: _mm256_mullo_epi16(scales, _mm256_set1_epi16(-32)),
        levels: [
            first[0], first[1], first[2], first[3], second[0], second[1], second[2], second[3],
        ],
    }
}
