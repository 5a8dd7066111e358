//! Products of eight rows with few tokens: each row's levels as they lie in its blocks, row after row, so that memory is
//! read in order; the sums of a block are brought together when all rows have theirs. It must not be called without AVX2,
//! FMA and F16C.

use std::arch::x86_64::*;

use super::super::{Block32, Block256};
use super::{
    Form, LANES, Smallblock, Strip, Superblock, add_smallblock, add_superblock, lanes, pairs,
};
use crate::each::each;
use crate::x86::avx2 as x86;

/// What the rows have come to over one block, for one token.
#[derive(Clone, Copy)]
pub(super) struct Partial {
    /// By row, sums that are still to be added up.
    sums: [__m256i; LANES],
    offsets: [__m256i; LANES],
    /// `d` and `offset` by row.
    factors: [[f32; LANES]; 2],
}

impl Partial {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    fn zero() -> Self {
        Self {
            sums: [_mm256_setzero_si256(); LANES],
            offsets: [_mm256_setzero_si256(); LANES],
            factors: [[0.0; LANES]; 2],
        }
    }
}

/// `partials` is room that calls share.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn wide<B, F: Form, const T: usize>(
    strip: &Strip<'_, B, LANES>,
    x: &[Block256<T>],
    open: &impl Fn(&B, f32) -> Superblock,
    partials: &mut Vec<Partial>,
) -> [__m256; T] {
    partials.resize(strip.blocks * T, Partial::zero());
    for (lane, (row, scale)) in strip.rows.iter().zip(strip.scales).enumerate() {
        let partials = partials.as_chunks_mut::<T>().0;
        for ((block, x), partials) in row.iter().zip(x).zip(partials) {
            x86::prefetch(block);
            let w = open(block, scale);
            let sums = products::<F, T>(&w, x);
            for (token, partial) in partials.iter_mut().enumerate() {
                partial.sums[lane] = sums[token];
                if !F::SIGNED {
                    let offsets = _mm256_madd_epi16(w.offsets, x86::words(&x.sums[token]));
                    if F::OWN_OFFSETS {
                        partial.offsets[lane] = offsets;
                    } else {
                        partial.sums[lane] = _mm256_add_epi32(sums[token], offsets);
                    }
                }
                partial.factors[0][lane] = w.d;
                partial.factors[1][lane] = w.offset;
            }
        }
    }

    let mut totals = [_mm256_setzero_ps(); T];
    for (x, partials) in x.iter().zip(partials.as_chunks::<T>().0) {
        for (token, partial) in partials.iter().enumerate() {
            let offsets = if F::OWN_OFFSETS {
                lanes::sums(partial.offsets)
            } else {
                _mm256_setzero_si256()
            };
            totals[token] = add_superblock::<F>(
                totals[token],
                each!(2, |at| x86::floats(&partial.factors[at])),
                x.scales[token],
                lanes::sums(partial.sums),
                offsets,
            );
        }
    }
    totals
}

/// Sums over scaled products of levels, one vector for each token.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn products<F: Form, const T: usize>(w: &Superblock, x: &Block256<T>) -> [__m256i; T] {
    let mut sums = [_mm256_setzero_si256(); T];
    for (group, (levels, x)) in w.levels.iter().zip(&x.levels).enumerate() {
        let scale = _mm256_shuffle_epi8(w.scales, _mm256_set1_epi16(PICK[group]));
        for (sum, x) in sums.iter_mut().zip(x) {
            let pairs = pairs::<F>(*levels, x86::bytes32(bytemuck::cast_ref(x)));
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(scale, pairs));
        }
    }
    sums
}

/// By group, the shuffle that spreads a lane's 16-bit number of that group over the lane.
const PICK: [i16; 8] = [
    0x0100, 0x0302, 0x0504, 0x0706, 0x0908, 0x0b0a, 0x0d0c, 0x0f0e,
];

/// The same for blocks of 32.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn narrow<B, F: Form, const T: usize>(
    strip: &Strip<'_, B, LANES>,
    x: &[Block32<T>],
    open: &impl Fn(&B) -> Smallblock,
    partials: &mut Vec<Partial>,
) -> [__m256; T] {
    let ones = _mm256_set1_epi16(1);
    partials.resize(strip.blocks * T, Partial::zero());
    for (lane, row) in strip.rows.iter().enumerate() {
        let partials = partials.as_chunks_mut::<T>().0;
        for ((block, x), partials) in row.iter().zip(x).zip(partials) {
            x86::prefetch(block);
            let w = open(block);
            for (token, partial) in partials.iter_mut().enumerate() {
                let x = x86::bytes32(bytemuck::cast_ref(&x.levels[token]));
                partial.sums[lane] = _mm256_madd_epi16(ones, pairs::<F>(w.levels, x));
                partial.factors[0][lane] = w.d;
                partial.factors[1][lane] = w.offset;
            }
        }
    }

    let mut totals = [_mm256_setzero_ps(); T];
    for (x, partials) in x.iter().zip(partials.as_chunks::<T>().0) {
        for (token, partial) in partials.iter().enumerate() {
            totals[token] = add_smallblock::<F>(
                totals[token],
                each!(2, |at| x86::floats(&partial.factors[at])),
                (x.scales[token], x.sums[token]),
                lanes::sums(partial.sums),
            );
        }
    }
    totals
}
