//! The loops of the int8 products with AVX2: a type opens its blocks, these multiply their levels with every token.
//! They must not be called without AVX2, FMA and F16C, and know no layout.
//!
//! Rows are taken eight at a time, one per lane of the sums. With few tokens the levels of a row are used as they lie
//! ([`direct`]); with more the eight rows are first interleaved ([`panel`]), so that products of several levels are
//! added as 16-bit numbers before a scale is applied, and no sum ever crosses lanes. Both make the same integers and
//! round the same floats in the same order, so that which of them ran does not show in a result.

mod direct;
pub(super) mod lanes;
mod panel;

use std::arch::x86_64::*;

use bytemuck::Pod;

use super::strip::{Behind, Place, See, Strip, each_tile};
use super::{Activations, Blocks, Rows, Width};
use crate::block;
use crate::x86::avx2 as x86;

/// Rows that are multiplied together.
const LANES: usize = 8;

/// Tokens from which interleaving pays: it costs as much as four tokens save.
pub(super) const FEW: usize = 4;

/// The largest scale of a sub-block, in magnitude.
pub(crate) const SCALE: u8 = 128;

/// How the levels of a type are to be read.
pub(crate) trait Form {
    /// Levels in a row that have one scale: 16, or 32 where both halves of every group have the same.
    const ALIKE: usize;
    /// Of the eight steps of four levels that a group of 32 has, how many are added as 16-bit numbers before they are
    /// scaled.
    const STEPS: usize;
    /// Levels are signed, and there are no offsets.
    const SIGNED: bool = false;
    /// Offsets have a factor of their own; else they are counted in the factor of the scales.
    const OWN_OFFSETS: bool = false;
    /// Bytes that a level takes once it is multiplied with its scale: 1 or 2.
    const PARTS: usize;
}

/// The [`Form::STEPS`] of levels up to this one in magnitude, of which `alike` in a row have one scale: a step adds at
/// most 2·127·largest, and 16 bits hold less than 2¹⁵.
pub(crate) const fn steps(largest: u8, alike: usize) -> usize {
    let fit = match largest {
        0..=16 => 8,
        17..=32 => 4,
        33..=64 => 2,
        _ => 1,
    };
    if fit < alike / 4 { fit } else { alike / 4 }
}

/// The [`Form::PARTS`] of levels and scales up to these in magnitude. The first part has a sign and seven bits, the second
/// seven bits; a scale is at most 128.
pub(crate) const fn parts(largest: u8, scale: u8) -> usize {
    if largest as u32 * scale as u32 <= 127 {
        1
    } else {
        2
    }
}

/// Signed levels without offsets.
pub(crate) struct Signed<const LARGEST: u8, const ALIKE: usize>;

impl<const LARGEST: u8, const ALIKE: usize> Form for Signed<LARGEST, ALIKE> {
    const ALIKE: usize = ALIKE;
    const STEPS: usize = steps(LARGEST, ALIKE);
    const SIGNED: bool = true;
    const PARTS: usize = parts(LARGEST, SCALE);
}

/// Unsigned levels; offsets are whole numbers of what the scales are in.
pub(crate) struct Shifted<const LARGEST: u8, const ALIKE: usize>;

impl<const LARGEST: u8, const ALIKE: usize> Form for Shifted<LARGEST, ALIKE> {
    const ALIKE: usize = ALIKE;
    const STEPS: usize = steps(LARGEST, ALIKE);
    const PARTS: usize = parts(LARGEST, SCALE);
}

/// Unsigned levels, and scales up to that one; offsets have a factor of their own.
pub(crate) struct Affine<const LARGEST: u8, const ALIKE: usize, const LARGEST_SCALE: u8 = SCALE>;

impl<const LARGEST: u8, const ALIKE: usize, const LARGEST_SCALE: u8> Form
    for Affine<LARGEST, ALIKE, LARGEST_SCALE>
{
    const ALIKE: usize = ALIKE;
    const STEPS: usize = steps(LARGEST, ALIKE);
    const OWN_OFFSETS: bool = true;
    const PARTS: usize = parts(LARGEST, LARGEST_SCALE);
}

/// A block of 256 weights, opened: level q of the sub-block s of 16 means `d·scales[s]·q + offset·offsets[s]`, where
/// `offset` counts only with [`Form::OWN_OFFSETS`] and is `d` otherwise.
///
/// No integer overflows: eight groups of two pairs, each below 2¹⁵, times a scale stay below 2³¹ for every scale of
/// at most [`SCALE`] in magnitude, and two sums of 16 activations times any 16-bit offset stay below 2²⁸.
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
    /// Counts only with [`Form::OWN_OFFSETS`].
    pub(crate) offset: f32,
    pub(crate) levels: __m256i,
}

/// Rows of 256-value blocks times activations; `open` is given a block and its row's scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn superblocks<B: Pod, F: Form>(
    rows: Rows<'_>,
    x: &Activations,
    out: &mut [f32],
    see: See<B>,
    open: impl Fn(&B, f32) -> Superblock,
) {
    let few = x.tokens() < FEW;
    // Tiles of the other grain add nothing.
    let mut totals = vec![_mm256_setzero_ps(); x.tokens()];
    let mut panel = panel::Wide::new();
    for first in (0..rows.count()).step_by(LANES) {
        let strip = Strip::new(rows, first, see);
        let mut out = Place::new(out, rows.count(), first);
        let mut behind = Behind::new(rows, first, LANES, strip.blocks * x.tiles().len());
        totals.fill(_mm256_setzero_ps());
        for at in 0..strip.blocks {
            if !few {
                panel.fill(&strip, at, &open);
            }
            each_tile!(x, Of256, totals, |blocks, totals| {
                x86::prefetch_step(&mut behind);
                if let Some(x) = blocks.get(at) {
                    if few {
                        direct::add_wide::<B, F, _>(&strip, at, x, &open, totals);
                    } else {
                        panel.add::<F, _>(x, totals);
                    }
                }
            });
        }
        for total in &totals {
            out.put(x86::array(*total));
        }
    }
}

/// Rows of 32-value blocks times activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn smallblocks<B: Pod, F: Form>(
    rows: Rows<'_>,
    x: &Activations,
    out: &mut [f32],
    open: impl Fn(&B) -> Smallblock,
) {
    let few = x.tokens() < FEW;
    // Tiles of the other grain add nothing.
    let mut totals = vec![_mm256_setzero_ps(); x.tokens()];
    let mut panel = panel::Narrow::new();
    for first in (0..rows.count()).step_by(LANES) {
        let strip = Strip::new(rows, first, block::plain::<B>);
        let mut out = Place::new(out, rows.count(), first);
        let mut behind = Behind::new(rows, first, LANES, strip.blocks * x.tiles().len());
        totals.fill(_mm256_setzero_ps());
        for at in 0..strip.blocks {
            if !few {
                panel.fill(&strip, at, &open);
            }
            each_tile!(x, Of32, totals, |blocks, totals| {
                x86::prefetch_step(&mut behind);
                if let Some(x) = blocks.get(at) {
                    if few {
                        direct::add_narrow::<B, F, _>(&strip, at, x, &open, totals);
                    } else {
                        panel.add::<F, _>(x, totals);
                    }
                }
            });
        }
        for total in &totals {
            out.put(x86::array(*total));
        }
    }
}

/// Sums of pairs of products of 32 levels, as 16-bit numbers.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn pairs<F: Form>(levels: __m256i, x: __m256i) -> __m256i {
    if F::SIGNED {
        // The instruction takes one unsigned side: the sign goes to the other.
        _mm256_maddubs_epi16(_mm256_abs_epi8(levels), _mm256_sign_epi8(x, levels))
    } else {
        _mm256_maddubs_epi16(levels, x)
    }
}

/// The rows' totals after a superblock whose sums these are: the one place where products of superblocks round.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_superblock<F: Form>(
    total: __m256,
    [d, offset]: [__m256; 2],
    scale: f32,
    sums: __m256i,
    offsets: __m256i,
) -> __m256 {
    let scale = _mm256_set1_ps(scale);
    let total = _mm256_fmadd_ps(_mm256_mul_ps(d, scale), _mm256_cvtepi32_ps(sums), total);
    if F::OWN_OFFSETS {
        let offset = _mm256_mul_ps(offset, scale);
        _mm256_fmadd_ps(offset, _mm256_cvtepi32_ps(offsets), total)
    } else {
        total
    }
}

/// The rows' totals after a block of 32 whose sums these are; `sum` is that of the activations.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_smallblock<F: Form>(
    total: __m256,
    [d, offset]: [__m256; 2],
    (scale, sum): (f32, f32),
    sums: __m256i,
) -> __m256 {
    let d = _mm256_mul_ps(d, _mm256_set1_ps(scale));
    let total = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(sums), total);
    if F::OWN_OFFSETS {
        _mm256_fmadd_ps(offset, _mm256_set1_ps(sum), total)
    } else {
        total
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

/// Whole numbers of at most 16 bits held as floats: those of the first halves of the groups, then of the second halves.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn of_halves([first, second]: [[f32; 8]; 2]) -> __m256i {
    let [first, second] = [
        _mm256_cvtps_epi32(x86::gather(first)),
        _mm256_cvtps_epi32(x86::gather(second)),
    ];
    // Packing works within lanes of 128 bits.
    _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(first, second))
}
