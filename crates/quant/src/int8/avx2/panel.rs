//! Products of eight rows with many tokens: a block of each row is opened and interleaved, four levels of each side by
//! side, so that a vector holds the same four columns of all rows and sums stay in their row's lane; then it meets every
//! token. It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::super::strip::Strip;
use super::super::{Block32, Block256};
use super::{Form, LANES, Smallblock, Superblock, add_smallblock, add_superblock, lanes};
use crate::each::each;
use crate::x86::avx2 as x86;

/// A superblock of eight rows.
pub(super) struct Wide {
    /// `d` and `offset` by row.
    factors: [[f32; LANES]; 2],
    /// By half, then group: a 16-bit scale twice in each row's lane.
    scales: [[__m256i; 8]; 2],
    /// Pairs of 16-bit offsets, in the order of [`Block256::sums`].
    offsets: [__m256i; 8],
    /// By group, then step: four levels of each row.
    levels: [[__m256i; 8]; 8],
}

/// A block of 32 of eight rows.
pub(super) struct Narrow {
    factors: [[f32; LANES]; 2],
    levels: [__m256i; 8],
}

impl Wide {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        let zero = _mm256_setzero_si256();
        Wide {
            factors: [[0.0; LANES]; 2],
            scales: [[zero; 8]; 2],
            offsets: [zero; 8],
            levels: [[zero; 8]; 8],
        }
    }

    /// The block at `at` of each row.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn fill<B>(
        &mut self,
        strip: &Strip<'_, B, LANES>,
        at: usize,
        open: &impl Fn(&B, f32) -> Superblock,
    ) {
        for (lane, (row, scale)) in strip.rows.iter().zip(strip.scales).enumerate() {
            let Some(block) = row.get(at) else { continue };
            let w = open(block, scale);
            self.factors[0][lane] = w.d;
            self.factors[1][lane] = w.offset;
            self.scales[0][lane] = w.scales;
            self.offsets[lane] = w.offsets;
            for (group, of_row) in self.levels.iter_mut().zip(w.levels) {
                group[lane] = of_row;
            }
        }
        // Each 16-bit number of the lower, of the upper half of a lane, twice.
        let orders: [i64; 2] = [0x0504_0504_0100_0100, 0x0706_0706_0302_0302];
        let [low, high] = each!(2, |at| {
            let later = 0x0808_0808_0808_0808;
            let order = orders[at];
            _mm256_set_epi64x(order + later, order, order + later, order)
        });
        let scales = lanes::transpose(self.scales[0]);
        for (half, twice) in self.scales.iter_mut().enumerate() {
            for (group, twice) in twice.iter_mut().enumerate() {
                let order = if group % 2 == 0 { low } else { high };
                *twice = _mm256_shuffle_epi8(scales[4 * half + group / 2], order);
            }
        }
        self.offsets = lanes::transpose(self.offsets);
        for group in &mut self.levels {
            *group = lanes::transpose(*group);
        }
    }

    /// Adds the rows' products with a block of some tokens to what the rows have come to.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add<F: Form, const T: usize>(&self, x: &Block256<T>, totals: &mut [__m256; T]) {
        let zero = _mm256_setzero_si256();
        let mut sums = [zero; T];
        for (group, (levels, x)) in self.levels.iter().zip(&x.levels).enumerate() {
            let mut part = 0;
            // Steps of a group share its scale in each half.
            while part < 8 {
                let products = steps::<F, T>(levels, x, part);
                let scale = self.scales[part / 4][group];
                for (sum, products) in sums.iter_mut().zip(products) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(scale, products));
                }
                part += F::STEPS;
            }
        }
        let mut offsets = [zero; T];
        if !F::SIGNED {
            for (token, offsets) in offsets.iter_mut().enumerate() {
                for (w, x) in self.offsets.iter().zip(x.sums[token].as_chunks::<2>().0) {
                    let x = _mm256_set1_epi32(bytemuck::cast(*x));
                    *offsets = _mm256_add_epi32(*offsets, _mm256_madd_epi16(*w, x));
                }
            }
        }
        let factors = each!(2, |at| x86::floats(&self.factors[at]));
        for token in 0..T {
            if !F::SIGNED && !F::OWN_OFFSETS {
                sums[token] = _mm256_add_epi32(sums[token], offsets[token]);
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

impl Narrow {
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn new() -> Self {
        Narrow {
            factors: [[0.0; LANES]; 2],
            levels: [_mm256_setzero_si256(); 8],
        }
    }

    /// The block at `at` of each row.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn fill<B>(
        &mut self,
        strip: &Strip<'_, B, LANES>,
        at: usize,
        open: &impl Fn(&B) -> Smallblock,
    ) {
        for (lane, row) in strip.rows.iter().enumerate() {
            let Some(block) = row.get(at) else { continue };
            let w = open(block);
            self.factors[0][lane] = w.d;
            self.factors[1][lane] = w.offset;
            self.levels[lane] = w.levels;
        }
        self.levels = lanes::transpose(self.levels);
    }

    /// Adds the rows' products with a block of some tokens to what the rows have come to.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(super) fn add<F: Form, const T: usize>(&self, x: &Block32<T>, totals: &mut [__m256; T]) {
        let ones = _mm256_set1_epi16(1);
        let mut sums = [_mm256_setzero_si256(); T];
        let mut part = 0;
        while part < 8 {
            let products = steps::<F, T>(&self.levels, &x.levels, part);
            for (sum, products) in sums.iter_mut().zip(products) {
                *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(ones, products));
            }
            part += F::STEPS;
        }
        let factors = each!(2, |at| x86::floats(&self.factors[at]));
        for token in 0..T {
            let of_x = (x.scales[token], x.sums[token]);
            totals[token] = add_smallblock::<F>(totals[token], factors, of_x, sums[token]);
        }
    }
}

/// Sums of products as 16-bit numbers, over the steps from `first` on that may be added so and share a scale.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn steps<F: Form, const T: usize>(
    levels: &[__m256i; 8],
    x: &[[i8; 32]; T],
    first: usize,
) -> [__m256i; T] {
    let mut sums = [_mm256_setzero_si256(); T];
    for step in first..first + F::STEPS {
        let levels = levels[step];
        let magnitude = if F::SIGNED {
            _mm256_abs_epi8(levels)
        } else {
            levels
        };
        for (sum, x) in sums.iter_mut().zip(x) {
            let mut x = _mm256_set1_epi32(bytemuck::cast(x.as_chunks::<4>().0[step]));
            if F::SIGNED {
                x = _mm256_sign_epi8(x, levels);
            }
            let products = _mm256_maddubs_epi16(magnitude, x);
            *sum = if step == first {
                products
            } else {
                _mm256_add_epi16(*sum, products)
            };
        }
    }
    sums
}
