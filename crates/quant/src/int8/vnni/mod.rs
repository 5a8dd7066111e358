//! The loops of the int8 products with AVX-512 VNNI, sixteen rows at a time. One instruction multiplies four levels of
//! every row with a token's and adds 32-bit numbers, so that a scale is applied once for all levels that have it. It wants
//! one side without signs: levels with signs are raised by 128, and 128 times the sum of the activations is taken off.
//! These make the same integers as [`super::avx2`] and round the same floats in the same order. They must not be called
//! without AVX-512 F, BW, DQ, VL and VNNI, and know no layout.

mod panel;

use std::arch::x86_64::*;

use bytemuck::Pod;

use super::avx2::{self, FEW, Form, Smallblock, Superblock};
use super::strip::{Behind, Place, See, Strip, each_tile};
use super::{Activations, Blocks, Rows, Width};
use crate::block;
use crate::x86::{avx2 as narrow, avx512 as x86};

/// Rows that are multiplied together.
const LANES: usize = 16;

/// Rows of 256-value blocks times activations; `open` is given a block and its row's scale.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(crate) fn superblocks<B: Pod, F: Form>(
    rows: Rows<'_>,
    x: &Activations,
    out: &mut [f32],
    see: See<B>,
    open: impl Fn(&B, f32) -> Superblock,
) {
    if x.tokens() < FEW {
        return avx2::superblocks::<B, F>(rows, x, out, see, open);
    }
    // Tiles of the other grain add nothing.
    let mut totals = vec![_mm512_setzero_ps(); x.tokens()];
    let mut panel = panel::Wide::new();
    for first in (0..rows.count()).step_by(LANES) {
        let strip = Strip::new(rows, first, see);
        let mut out = Place::new(out, rows.count(), first);
        let mut behind = Behind::new(rows, first, LANES, strip.blocks * x.tiles().len());
        totals.fill(_mm512_setzero_ps());
        for at in 0..strip.blocks {
            panel.fill::<B, F>(&strip, at, &open);
            each_tile!(x, Of256, totals, |blocks, totals| {
                narrow::prefetch_step(&mut behind);
                if let Some(x) = blocks.get(at) {
                    panel.add::<F, _>(x, totals);
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(crate) fn smallblocks<B: Pod, F: Form>(
    rows: Rows<'_>,
    x: &Activations,
    out: &mut [f32],
    open: impl Fn(&B) -> Smallblock,
) {
    if x.tokens() < FEW {
        return avx2::smallblocks::<B, F>(rows, x, out, open);
    }
    // Tiles of the other grain add nothing.
    let mut totals = vec![_mm512_setzero_ps(); x.tokens()];
    let mut panel = panel::Narrow::new();
    for first in (0..rows.count()).step_by(LANES) {
        let strip = Strip::new(rows, first, block::plain::<B>);
        let mut out = Place::new(out, rows.count(), first);
        let mut behind = Behind::new(rows, first, LANES, strip.blocks * x.tiles().len());
        totals.fill(_mm512_setzero_ps());
        for at in 0..strip.blocks {
            panel.fill::<B, F>(&strip, at, &open);
            each_tile!(x, Of32, totals, |blocks, totals| {
                narrow::prefetch_step(&mut behind);
                if let Some(x) = blocks.get(at) {
                    panel.add::<F, _>(x, totals);
                }
            });
        }
        for total in &totals {
            out.put(x86::array(*total));
        }
    }
}

/// The rows' totals after a superblock whose sums these are: rounds as [`super::avx2`] does.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_superblock<F: Form>(
    total: __m512,
    [d, offset]: [__m512; 2],
    scale: f32,
    sums: __m512i,
    offsets: __m512i,
) -> __m512 {
    let scale = _mm512_set1_ps(scale);
    let total = _mm512_fmadd_ps(_mm512_mul_ps(d, scale), _mm512_cvtepi32_ps(sums), total);
    if F::OWN_OFFSETS {
        let offset = _mm512_mul_ps(offset, scale);
        _mm512_fmadd_ps(offset, _mm512_cvtepi32_ps(offsets), total)
    } else {
        total
    }
}

/// The rows' totals after a block of 32 whose sums these are; `sum` is that of the activations.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_smallblock<F: Form>(
    total: __m512,
    [d, offset]: [__m512; 2],
    (scale, sum): (f32, f32),
    sums: __m512i,
) -> __m512 {
    let d = _mm512_mul_ps(d, _mm512_set1_ps(scale));
    let total = _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(sums), total);
    if F::OWN_OFFSETS {
        _mm512_fmadd_ps(offset, _mm512_set1_ps(sum), total)
    } else {
        total
    }
}
