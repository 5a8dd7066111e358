//! Rows of weights as tiles take them: each row's block is opened and its scales are multiplied into its levels, so that
//! one sum runs over all of them. Such a product has up to 15 bits; where it has more than 8, it is taken apart into
//! sevens of bits, and two sums are put together at the end. It must not be called without AMX.

use std::arch::x86_64::*;

use super::super::avx2::{Form, Smallblock, Superblock};
use super::super::strip::{Behind, Strip};
use super::tiles::{self, LANES, Left, SIDES, Sums, Tile};
use super::{Totals, tokens};
use crate::each::each;
use crate::x86::{avx2 as narrow, avx512 as x86};

/// Bits of the lower part of a weight.
const LOW: u32 = 7;

/// A superblock of sixteen rows for every strip: [`SIDES`] / [`Form::PARTS`] of them.
#[repr(align(64))]
pub(super) struct Wide {
    /// By 64 values, then strip, then part.
    levels: [[Tile; SIDES]; 4],
    /// By strip, then row.
    d: [[f32; LANES]; SIDES],
    offset: [[f32; LANES]; SIDES],
    /// Pairs of offsets in the order of [`super::super::Block256::sums`].
    offsets: [[[i32; 8]; LANES]; SIDES],
}

/// A block of 32 of sixteen rows for every strip.
#[repr(align(64))]
pub(super) struct Narrow {
    levels: [Left; SIDES],
    d: [[f32; LANES]; SIDES],
    offset: [[f32; LANES]; SIDES],
}

impl Wide {
    pub(super) const fn new() -> Wide {
        Wide {
            levels: [[Tile::ZERO; SIDES]; 4],
            d: [[0.0; LANES]; SIDES],
            offset: [[0.0; LANES]; SIDES],
            offsets: [[[0; 8]; LANES]; SIDES],
        }
    }

    /// The block at `at` of each row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn fill<B, F: Form>(
        &mut self,
        strips: &[Strip<'_, B, LANES>],
        at: usize,
        open: &impl Fn(&B, f32) -> Superblock,
        behind: &mut Behind,
    ) {
        for (index, strip) in strips.iter().enumerate() {
            for (lane, (row, scale)) in strip.rows.iter().zip(strip.scales).enumerate() {
                let Some(block) = row.get(at) else { continue };
                narrow::prefetch_step(behind);
                let w = open(block, scale);
                self.d[index][lane] = w.d;
                if F::OWN_OFFSETS {
                    self.offset[index][lane] = w.offset;
                    self.offsets[index][lane] = bytemuck::cast(narrow::to_bytes(w.offsets));
                }
                for (of_64, tiles) in self.levels.iter_mut().enumerate() {
                    let words = each!(2, |half| weights::<F>(&w, 2 * of_64 + half));
                    let sides = &mut tiles[F::PARTS * index..];
                    if F::PARTS == 1 {
                        sides[0].0[lane] = x86::to_bytes(pack(words));
                    } else {
                        let low = _mm512_set1_epi16((1 << LOW) - 1);
                        let highs = each!(2, |half| _mm512_srai_epi16::<LOW>(words[half]));
                        let lows = each!(2, |half| _mm512_and_si512(words[half], low));
                        sides[0].0[lane] = x86::to_bytes(pack(highs));
                        sides[1].0[lane] = x86::to_bytes(pack(lows));
                    }
                }
            }
        }
    }

    /// Adds the strips' products with a block of sixteen tokens to what they have come to.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn add<F: Form>(
        &self,
        tiles: &tiles::Wide,
        x: &tokens::Wide,
        sums: &mut [Sums; SIDES],
        totals: &mut [Totals],
    ) {
        tiles.multiply(&self.levels, &x.levels, sums);
        let scale = x86::floats(&x.scales);
        let mut pairs = each!(8, |at| x86::bytes64(bytemuck::cast_ref(&x.sums[at])));
        let halves_differ = F::ALIKE == 16;
        if !halves_differ {
            for at in 0..4 {
                pairs[at] = _mm512_add_epi16(pairs[at], pairs[at + 4]);
            }
        }
        for (strip, (totals, sums)) in totals.iter_mut().zip(sums.chunks(F::PARTS)).enumerate() {
            for (row, total) in totals.0.iter_mut().enumerate() {
                let mut sum = x86::numbers(&sums[0].0[row]);
                if F::PARTS == 2 {
                    let low = x86::numbers(&sums[1].0[row]);
                    sum = _mm512_add_epi32(_mm512_slli_epi32::<LOW>(sum), low);
                }
                let d = _mm512_mul_ps(_mm512_set1_ps(self.d[strip][row]), scale);
                let mut sum = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(sum), x86::floats(total));
                if F::OWN_OFFSETS {
                    let mut of_offsets = _mm512_setzero_si512();
                    let count = if halves_differ { 8 } else { 4 };
                    let of_row = &self.offsets[strip][row];
                    for (offsets, pairs) in of_row.iter().zip(pairs).take(count) {
                        let offsets = _mm512_set1_epi32(*offsets);
                        of_offsets = _mm512_dpwssd_epi32(of_offsets, offsets, pairs);
                    }
                    let offset = _mm512_mul_ps(_mm512_set1_ps(self.offset[strip][row]), scale);
                    sum = _mm512_fmadd_ps(offset, _mm512_cvtepi32_ps(of_offsets), sum);
                }
                *total = x86::array(sum);
            }
        }
    }
}

/// The 32 weights of a group in units of the block's `d`, offsets included where they are in these units.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn weights<F: Form>(w: &Superblock, group: usize) -> __m512i {
    let first = _mm512_set1_epi16(group as i16);
    // The upper half of the values has the scales of the second halves of groups, which come eight later.
    let of_halves = _mm512_mask_add_epi16(first, 0xffff_0000, first, _mm512_set1_epi16(8));
    let spread = |numbers| _mm512_permutexvar_epi16(of_halves, _mm512_castsi256_si512(numbers));
    let weights = _mm512_mullo_epi16(_mm512_cvtepi8_epi16(w.levels[group]), spread(w.scales));
    if F::SIGNED || F::OWN_OFFSETS {
        weights
    } else {
        _mm512_add_epi16(weights, spread(w.offsets))
    }
}

/// Two vectors of words as bytes, eight of the first and eight of the second in turn.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn pack([first, second]: [__m512i; 2]) -> __m512i {
    _mm512_packs_epi16(first, second)
}

impl Narrow {
    pub(super) const fn new() -> Narrow {
        Narrow {
            levels: [Left::ZERO; SIDES],
            d: [[0.0; LANES]; SIDES],
            offset: [[0.0; LANES]; SIDES],
        }
    }

    /// The block at `at` of each row.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn fill<B>(
        &mut self,
        strips: &[Strip<'_, B, LANES>],
        at: usize,
        open: &impl Fn(&B) -> Smallblock,
        behind: &mut Behind,
    ) {
        for (index, strip) in strips.iter().enumerate() {
            for (lane, row) in strip.rows.iter().enumerate() {
                let Some(block) = row.get(at) else { continue };
                narrow::prefetch_step(behind);
                let w = open(block);
                self.d[index][lane] = w.d;
                self.offset[index][lane] = w.offset;
                self.levels[index].0[lane] = narrow::to_bytes(w.levels);
            }
        }
    }

    /// Adds the strips' products with a block of sixteen tokens to what they have come to.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn add<F: Form>(
        &self,
        tiles: &tiles::Narrow,
        x: &tokens::Narrow,
        sums: &mut [Sums; SIDES],
        totals: &mut [Totals],
    ) {
        tiles.multiply(&self.levels, &x.levels, sums);
        let (scale, of_x) = (x86::floats(&x.scales), x86::floats(&x.sums));
        for (strip, (totals, sums)) in totals.iter_mut().zip(sums.iter()).enumerate() {
            for (row, total) in totals.0.iter_mut().enumerate() {
                let sum = _mm512_cvtepi32_ps(x86::numbers(&sums.0[row]));
                let d = _mm512_mul_ps(_mm512_set1_ps(self.d[strip][row]), scale);
                let mut sum = _mm512_fmadd_ps(d, sum, x86::floats(total));
                if F::OWN_OFFSETS {
                    let offset = _mm512_set1_ps(self.offset[strip][row]);
                    sum = _mm512_fmadd_ps(offset, of_x, sum);
                }
                *total = x86::array(sum);
            }
        }
    }
}
