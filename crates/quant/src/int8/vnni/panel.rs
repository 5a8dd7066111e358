//! Products of sixteen rows with many tokens: a block of each row is opened and interleaved, four levels of each side by
//! side, so that a vector holds the same four columns of all rows and sums stay in their row's lane; then it meets every
//! token. It must not be called without AVX-512 F, BW, DQ, VL and VNNI.

use std::arch::x86_64::*;

use super::super::avx2::{Form, Smallblock, Superblock, lanes};
use super::super::strip::Strip;
use super::super::{Block32, Block256};
use super::{LANES, add_smallblock, add_superblock};
use crate::each::each;
use crate::x86::avx512 as x86;

/// What makes a level with a sign one without.
const RAISE: i8 = -128;

/// Vectors of the lower and of the upper eight rows; a vector of all sixteen once they are turned.
type Halves = [__m256i; 2];

/// A superblock of sixteen rows.
#[repr(align(64))]
pub(super) struct Wide {
    /// `d` and `offset` by row.
    factors: [[f32; LANES]; 2],
    /// Pairs of 16-bit scales, in the order of [`Block256::sums`].
    scales: [Halves; 8],
    /// Pairs of 16-bit offsets, in the same order.
    offsets: [Halves; 8],
    /// By group, then step: four levels of each row, none negative.
    levels: [[Halves; 8]; 8],
}

/// A block of 32 of sixteen rows.
#[repr(align(64))]
pub(super) struct Narrow {
    factors: [[f32; LANES]; 2],
    levels: [Halves; 8],
}

/// By step the four bytes of every row, from the 32 bytes of each row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn turn(vectors: &mut [Halves; 8]) {
    for half in 0..2 {
        let turned = lanes::transpose(each!(8, |row| vectors[row][half]));
        for (vector, turned) in vectors.iter_mut().zip(turned) {
            vector[half] = turned;
        }
    }
}

impl Wide {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        let zero = [_mm256_setzero_si256(); 2];
        Wide {
            factors: [[0.0; LANES]; 2],
            scales: [zero; 8],
            offsets: [zero; 8],
            levels: [[zero; 8]; 8],
        }
    }

    /// The block at `at` of each row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn fill<B, F: Form>(
        &mut self,
        strip: &Strip<'_, B, LANES>,
        at: usize,
        open: &impl Fn(&B, f32) -> Superblock,
    ) {
        let raise = _mm256_set1_epi8(RAISE);
        for (lane, (row, scale)) in strip.rows.iter().zip(strip.scales).enumerate() {
            let Some(block) = row.get(at) else { continue };
            let (half, lane_of_half) = (lane / 8, lane % 8);
            let w = open(block, scale);
            self.factors[0][lane] = w.d;
            self.factors[1][lane] = w.offset;
            self.scales[lane_of_half][half] = w.scales;
            // Signed types have no offsets of their own, and scales of a byte: 128 times that fits.
            self.offsets[lane_of_half][half] = if F::SIGNED {
                _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16::<7>(w.scales))
            } else {
                w.offsets
            };
            for (group, levels) in self.levels.iter_mut().zip(w.levels) {
                group[lane_of_half][half] = if F::SIGNED {
                    _mm256_xor_si256(levels, raise)
                } else {
                    levels
                };
            }
        }
        turn(&mut self.scales);
        turn(&mut self.offsets);
        for group in &mut self.levels {
            turn(group);
        }
    }

    /// Adds the rows' products with a block of some tokens to what the rows have come to.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn add<F: Form, const T: usize>(&self, x: &Block256<T>, totals: &mut [__m512; T]) {
        let zero = _mm512_setzero_si512();
        let mut sums = [zero; T];
        for (group, (levels, x)) in self.levels.iter().zip(&x.levels).enumerate() {
            for half in 0..32 / F::ALIKE {
                let steps = F::ALIKE / 4;
                let mut products = [zero; T];
                let part = levels.iter().enumerate().skip(half * steps).take(steps);
                for (step, levels) in part {
                    add_step(&mut products, levels, x, step);
                }
                let scale = scale(&self.scales, 8 * half + group);
                for (sum, products) in sums.iter_mut().zip(products) {
                    *sum = _mm512_add_epi32(*sum, _mm512_mullo_epi32(scale, products));
                }
            }
        }
        let mut offsets = [zero; T];
        for (token, offsets) in offsets.iter_mut().enumerate() {
            for (w, x) in self.offsets.iter().zip(x.sums[token].as_chunks::<2>().0) {
                let x = _mm512_set1_epi32(bytemuck::cast(*x));
                *offsets = _mm512_dpwssd_epi32(*offsets, x86::halves(w), x);
            }
        }
        let factors = each!(2, |at| x86::floats(&self.factors[at]));
        for token in 0..T {
            if !F::OWN_OFFSETS {
                sums[token] = _mm512_add_epi32(sums[token], offsets[token]);
            }
            totals[token] = add_superblock::<F>(
                totals[token],
                factors,
                x.scales[token],
                sums[token],
                offsets[token],
            );
        }
    }
}

/// The rows' scales of a sub-block, as 32-bit numbers; `at` is its place in the order of [`Block256::sums`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn scale(scales: &[Halves; 8], at: usize) -> __m512i {
    let pair = x86::halves(&scales[at / 2]);
    let on_top = if at.is_multiple_of(2) {
        _mm512_slli_epi32::<16>(pair)
    } else {
        pair
    };
    _mm512_srai_epi32::<16>(on_top)
}

/// Adds a step's four products of every row, for each token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_step<const T: usize>(
    sums: &mut [__m512i; T],
    levels: &Halves,
    x: &[[i8; 32]; T],
    step: usize,
) {
    let levels = x86::halves(levels);
    for (sum, x) in sums.iter_mut().zip(x) {
        let x = _mm512_set1_epi32(bytemuck::cast(x.as_chunks::<4>().0[step]));
        *sum = _mm512_dpbusd_epi32(*sum, levels, x);
    }
}

impl Narrow {
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        Narrow {
            factors: [[0.0; LANES]; 2],
            levels: [[_mm256_setzero_si256(); 2]; 8],
        }
    }

    /// The block at `at` of each row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn fill<B, F: Form>(
        &mut self,
        strip: &Strip<'_, B, LANES>,
        at: usize,
        open: &impl Fn(&B) -> Smallblock,
    ) {
        let raise = _mm256_set1_epi8(RAISE);
        for (lane, row) in strip.rows.iter().enumerate() {
            let Some(block) = row.get(at) else { continue };
            let w = open(block);
            self.factors[0][lane] = w.d;
            self.factors[1][lane] = w.offset;
            self.levels[lane % 8][lane / 8] = if F::SIGNED {
                _mm256_xor_si256(w.levels, raise)
            } else {
                w.levels
            };
        }
        turn(&mut self.levels);
    }

    /// Adds the rows' products with a block of some tokens to what the rows have come to.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn add<F: Form, const T: usize>(&self, x: &Block32<T>, totals: &mut [__m512; T]) {
        let mut sums = [_mm512_setzero_si512(); T];
        if F::SIGNED {
            for (sum, of_x) in sums.iter_mut().zip(x.level_sums) {
                *sum = _mm512_set1_epi32(i32::from(RAISE) * of_x);
            }
        }
        for (step, levels) in self.levels.iter().enumerate() {
            add_step(&mut sums, levels, &x.levels, step);
        }
        let factors = each!(2, |at| x86::floats(&self.factors[at]));
        for token in 0..T {
            let of_x = (x.scales[token], x.sums[token]);
            totals[token] = add_smallblock::<F>(totals[token], factors, of_x, sums[token]);
        }
    }
}
