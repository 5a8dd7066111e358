//! The loops of the int8 products with AVX2: a type opens its blocks, these multiply their levels with every token of a
//! tile. They must not be called without AVX2, FMA and F16C, and know no layout.
//!
//! No integer overflows: a level is at most 128 in magnitude and an activation at most 127, so the sum of a pair of
//! products is at most 2·128·127 < 2¹⁵; eight groups of two such pairs times a scale stay below 2³¹ for every scale of
//! at most 4,096 in magnitude, and two sums of 16 activations times any 16-bit offset stay below 2²⁸.

use std::arch::x86_64::*;

use bytemuck::Pod;

use super::{Block32, Block256, Blocks, Tile, Width};
use crate::block;
use crate::x86::avx2 as x86;

/// A block of 256 weights, opened: level q of the sub-block s of 16 means `d·scales[s]·q + offset·offsets[s]`.
///
/// The vectors of sub-blocks hold 16-bit numbers in the order of [`Block256::sums`]: the first halves of the eight
/// groups of 32, then the second halves.
pub(crate) struct Superblock {
    pub(crate) d: f32,
    pub(crate) scales: __m256i,
    pub(crate) offset: f32,
    pub(crate) offsets: __m256i,
    pub(crate) levels: [__m256i; 8],
}

/// A block of 32 weights, opened: level q means `d·q + offset`.
pub(crate) struct Smallblock {
    pub(crate) d: f32,
    pub(crate) offset: f32,
    /// Signed.
    pub(crate) levels: __m256i,
}

/// A row of 256-value blocks times a tile. Without `SIGNED`, levels are unsigned bytes; with it they are signed ones, a
/// step more per product, and there are no offsets.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn superblocks<B: Pod, const SIGNED: bool>(
    row: &[u8],
    tile: &Tile,
    out: &mut [f32],
    open: impl Fn(&B) -> Superblock,
) {
    match &tile.0 {
        Width::One(Blocks::Of256(x)) => store(out, wide::<B, 1, SIGNED>(row, x, open)),
        Width::Two(Blocks::Of256(x)) => store(out, wide::<B, 2, SIGNED>(row, x, open)),
        Width::Four(Blocks::Of256(x)) => store(out, wide::<B, 4, SIGNED>(row, x, open)),
        Width::Eight(Blocks::Of256(x)) => store(out, wide::<B, 8, SIGNED>(row, x, open)),
        _ => out.fill(0.0),
    }
}

/// A row of 32-value blocks times a tile.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn smallblocks<B: Pod>(
    row: &[u8],
    tile: &Tile,
    out: &mut [f32],
    open: impl Fn(&B) -> Smallblock,
) {
    match &tile.0 {
        Width::One(Blocks::Of32(x)) => store(out, narrow::<B, 1>(row, x, open)),
        Width::Two(Blocks::Of32(x)) => store(out, narrow::<B, 2>(row, x, open)),
        Width::Four(Blocks::Of32(x)) => store(out, narrow::<B, 4>(row, x, open)),
        Width::Eight(Blocks::Of32(x)) => store(out, narrow::<B, 8>(row, x, open)),
        _ => out.fill(0.0),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn wide<B: Pod, const T: usize, const SIGNED: bool>(
    row: &[u8],
    x: &[Block256<T>],
    open: impl Fn(&B) -> Superblock,
) -> [f32; T] {
    let mut totals = [_mm256_setzero_ps(); T];
    for (block, x) in block::blocks::<B>(row).iter().zip(x) {
        let w = open(block);
        let mut sums = [_mm256_setzero_si256(); T];
        for (group, (levels, x)) in w.levels.iter().zip(&x.levels).enumerate() {
            let scale = _mm256_shuffle_epi8(w.scales, _mm256_set1_epi16(PICK[group]));
            for (sum, x) in sums.iter_mut().zip(x) {
                let pairs = pairs::<SIGNED>(*levels, x);
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(scale, pairs));
            }
        }
        for token in 0..T {
            let d = _mm256_set1_ps(w.d * x.scales[token]);
            let products = _mm256_cvtepi32_ps(sums[token]);
            totals[token] = _mm256_fmadd_ps(d, products, totals[token]);
            if !SIGNED {
                let sums = x86::bytes32(bytemuck::cast_ref(&x.sums[token]));
                let offsets = _mm256_cvtepi32_ps(_mm256_madd_epi16(w.offsets, sums));
                let d = _mm256_set1_ps(w.offset * x.scales[token]);
                totals[token] = _mm256_fmadd_ps(d, offsets, totals[token]);
            }
        }
    }
    totals.map(|total| x86::sum(total))
}

/// By group, the shuffle that spreads a lane's 16-bit number of that group over the lane.
const PICK: [i16; 8] = [
    0x0100, 0x0302, 0x0504, 0x0706, 0x0908, 0x0b0a, 0x0d0c, 0x0f0e,
];

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn narrow<B: Pod, const T: usize>(
    row: &[u8],
    x: &[Block32<T>],
    open: impl Fn(&B) -> Smallblock,
) -> [f32; T] {
    let mut totals = [_mm256_setzero_ps(); T];
    let mut offsets = [0.0; T];
    let ones = _mm256_set1_epi16(1);
    for (block, x) in block::blocks::<B>(row).iter().zip(x) {
        let w = open(block);
        for token in 0..T {
            let pairs = pairs::<true>(w.levels, &x.levels[token]);
            let products = _mm256_cvtepi32_ps(_mm256_madd_epi16(ones, pairs));
            let d = _mm256_set1_ps(w.d * x.scales[token]);
            totals[token] = _mm256_fmadd_ps(d, products, totals[token]);
            offsets[token] += w.offset * x.sums[token];
        }
    }
    let mut out = totals.map(|total| x86::sum(total));
    for (out, offset) in out.iter_mut().zip(offsets) {
        *out += offset;
    }
    out
}

/// A row of blocks of `N` values times a tile, where each group of 32 has two scales that are floats: those of its
/// halves, each in four lanes. `open` gives a block's group by its index.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn groups<B, const N: usize>(
    blocks: &[B],
    tile: &Tile,
    out: &mut [f32],
    open: impl Fn(&B, usize) -> (__m256, __m256i),
) {
    match &tile.0 {
        Width::One(x) => store(out, grouped::<B, N, _>(blocks, x, open)),
        Width::Two(x) => store(out, grouped::<B, N, _>(blocks, x, open)),
        Width::Four(x) => store(out, grouped::<B, N, _>(blocks, x, open)),
        Width::Eight(x) => store(out, grouped::<B, N, _>(blocks, x, open)),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn grouped<B, const N: usize, const T: usize>(
    blocks: &[B],
    x: &Blocks<T>,
    open: impl Fn(&B, usize) -> (__m256, __m256i),
) -> [f32; T] {
    let mut totals = [_mm256_setzero_ps(); T];
    let mut add = |block: &B, scales: &[f32; T], levels: &[[[i8; 32]; T]]| {
        let mut sums = [_mm256_setzero_ps(); T];
        for (index, x) in levels.iter().enumerate() {
            let (scale, levels) = open(block, index);
            for (sum, x) in sums.iter_mut().zip(x) {
                let products = _mm256_madd_epi16(_mm256_set1_epi16(1), pairs::<true>(levels, x));
                *sum = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(products), *sum);
            }
        }
        for token in 0..T {
            let scale = _mm256_set1_ps(scales[token]);
            totals[token] = _mm256_fmadd_ps(scale, sums[token], totals[token]);
        }
    };
    match x {
        Blocks::Of256(x) if N == 256 => {
            for (block, x) in blocks.iter().zip(x) {
                add(block, &x.scales, &x.levels);
            }
        }
        Blocks::Of32(x) if N == 32 => {
            for (block, x) in blocks.iter().zip(x) {
                add(block, &x.scales, std::slice::from_ref(&x.levels));
            }
        }
        Blocks::Of256(_) | Blocks::Of32(_) => {}
    }
    totals.map(|total| x86::sum(total))
}

/// Sums of pairs of products of 32 levels, as 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pairs<const SIGNED: bool>(levels: __m256i, x: &[i8; 32]) -> __m256i {
    let x = x86::bytes32(bytemuck::cast_ref(x));
    if SIGNED {
        // The instruction takes one unsigned side: the sign goes to the other.
        _mm256_maddubs_epi16(_mm256_abs_epi8(levels), _mm256_sign_epi8(x, levels))
    } else {
        _mm256_maddubs_epi16(levels, x)
    }
}

fn store<const T: usize>(out: &mut [f32], values: [f32; T]) {
    for (out, value) in out.iter_mut().zip(values) {
        *out = value;
    }
}

/// Eight 8-bit numbers, one per group, for both halves of each group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn per_group(numbers: [i8; 8]) -> __m256i {
    let numbers = _mm_cvtsi64_si128(i64::from_le_bytes(bytemuck::cast(numbers)));
    _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(numbers))
}

/// Sixteen 8-bit numbers, one per sub-block in order, brought into the order of the halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn per_half(numbers: __m128i) -> __m256i {
    let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    _mm256_cvtepi8_epi16(_mm_shuffle_epi8(numbers, order))
}
