//! Products of eight rows with few tokens: the levels of a block of each row are used as they lie there, and the rows' sums
//! are then brought together. It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::super::strip::Strip;
use super::super::{Block32, Block256};
use super::{Form, LANES, Smallblock, Superblock, add_smallblock, add_superblock, lanes, pairs};
use crate::x86::avx2 as x86;

/// Adds the products of the block at `at` of each row with some tokens to what the rows have come to.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn add_wide<B, F: Form, const T: usize>(
    strip: &Strip<'_, B, LANES>,
    at: usize,
    x: &Block256<T>,
    open: &impl Fn(&B, f32) -> Superblock,
    totals: &mut [__m256; T],
) {
    let zero = _mm256_setzero_si256();
    let mut sums = [[zero; LANES]; T];
    let mut offsets = [[zero; LANES]; T];
    let mut factors = [[0.0; LANES]; 2];
    for (lane, (row, scale)) in strip.rows.iter().zip(strip.scales).enumerate() {
        let Some(block) = row.get(at) else { continue };
        let w = open(block, scale);
        factors[0][lane] = w.d;
        factors[1][lane] = w.offset;
        let of_row = products::<F, T>(&w, x);
        for token in 0..T {
            sums[token][lane] = of_row[token];
            if !F::SIGNED {
                let of_row = _mm256_madd_epi16(w.offsets, x86::words(&x.sums[token]));
                if F::OWN_OFFSETS {
                    offsets[token][lane] = of_row;
                } else {
                    sums[token][lane] = _mm256_add_epi32(sums[token][lane], of_row);
                }
            }
        }
    }
    let factors = [x86::gather(factors[0]), x86::gather(factors[1])];
    for token in 0..T {
        let offsets = if F::OWN_OFFSETS {
            lanes::sums(offsets[token])
        } else {
            zero
        };
        totals[token] = add_superblock::<F>(
            totals[token],
            factors,
            x.scales[token],
            lanes::sums(sums[token]),
            offsets,
        );
    }
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
pub(super) fn add_narrow<B, F: Form, const T: usize>(
    strip: &Strip<'_, B, LANES>,
    at: usize,
    x: &Block32<T>,
    open: &impl Fn(&B) -> Smallblock,
    totals: &mut [__m256; T],
) {
    let ones = _mm256_set1_epi16(1);
    let mut sums = [[_mm256_setzero_si256(); LANES]; T];
    let mut factors = [[0.0; LANES]; 2];
    for (lane, row) in strip.rows.iter().enumerate() {
        let Some(block) = row.get(at) else { continue };
        let w = open(block);
        factors[0][lane] = w.d;
        factors[1][lane] = w.offset;
        for (sums, x) in sums.iter_mut().zip(&x.levels) {
            let x = x86::bytes32(bytemuck::cast_ref(x));
            sums[lane] = _mm256_madd_epi16(ones, pairs::<F>(w.levels, x));
        }
    }
    let factors = [x86::gather(factors[0]), x86::gather(factors[1])];
    for token in 0..T {
        totals[token] = add_smallblock::<F>(
            totals[token],
            factors,
            (x.scales[token], x.sums[token]),
            lanes::sums(sums[token]),
        );
    }
}
