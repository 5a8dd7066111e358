//! The loops of the int8 products with AMX: one instruction multiplies sixteen rows with sixteen tokens, over 64 levels.
//! Scales of sub-blocks are multiplied into the levels first, so that the whole of a superblock is one sum; the integers
//! are those of [`super::avx2`], and the same floats are rounded in the same order. They must not be called without AMX and
//! AVX-512 F, BW, DQ, VL and VNNI, and know no layout.

mod panel;
mod tiles;
mod tokens;

use bytemuck::Pod;

use super::avx2::{Form, Smallblock, Superblock};
use super::strip::{Behind, Place, See, Strip};
use super::{Activations, Rows, vnni};
use crate::block;
use crate::each::each;
use crate::x86::avx512 as x86;
use tiles::{LANES, SIDES, Sums};
pub(crate) use tokens::Tokens;

/// Tokens from which tiles pay, for each part of a weight: a tile takes as long for one as for sixteen.
const FEW: usize = 8;

/// By row of a strip, what its products with sixteen tokens have come to.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Totals([[f32; LANES]; LANES]);

impl Totals {
    const ZERO: Totals = Totals([[0.0; LANES]; LANES]);
}

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
    if x.tokens() < FEW * F::PARTS {
        return vnni::superblocks::<B, F>(rows, x, out, see, open);
    }
    let tokens = x.turned.get_or_init(|| Tokens::new(x));
    let tiles = tiles::Wide::new();
    let (mut panel, mut sums) = (panel::Wide::new(), [Sums::ZERO; SIDES]);
    let together = SIDES / F::PARTS;
    let mut totals = vec![Totals::ZERO; tokens.count * together];
    for first in (0..rows.count()).step_by(together * LANES) {
        let strips = each!(4, |strip| Strip::new(rows, first + strip * LANES, see));
        let live = (rows.count() - first).div_ceil(LANES).min(together);
        let blocks = strips[0].blocks;
        let mut behind = Behind::new(rows, first, live * LANES, blocks * live * LANES);
        totals.fill(Totals::ZERO);
        for at in 0..blocks {
            panel.fill::<B, F>(&strips[..live], at, &open, &mut behind);
            for (x, totals) in tokens.wide(at).iter().zip(totals.chunks_mut(together)) {
                panel.add::<F>(&tiles, x, &mut sums, &mut totals[..live]);
            }
        }
        for strip in 0..live {
            let of_strip = totals[strip..].iter().step_by(together);
            put(
                of_strip,
                x.tokens(),
                Place::new(out, rows.count(), first + strip * LANES),
            );
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
        return vnni::smallblocks::<B, F>(rows, x, out, open);
    }
    let tokens = x.turned.get_or_init(|| Tokens::new(x));
    let tiles = tiles::Narrow::new();
    let (mut panel, mut sums) = (panel::Narrow::new(), [Sums::ZERO; SIDES]);
    let mut totals = vec![Totals::ZERO; tokens.count * SIDES];
    for first in (0..rows.count()).step_by(SIDES * LANES) {
        let strips = each!(4, |strip| {
            Strip::new(rows, first + strip * LANES, block::plain::<B>)
        });
        let live = (rows.count() - first).div_ceil(LANES).min(SIDES);
        let blocks = strips[0].blocks;
        let mut behind = Behind::new(rows, first, live * LANES, blocks * live * LANES);
        totals.fill(Totals::ZERO);
        for at in 0..blocks {
            panel.fill(&strips[..live], at, &open, &mut behind);
            for (x, totals) in tokens.narrow(at).iter().zip(totals.chunks_mut(SIDES)) {
                panel.add::<F>(&tiles, x, &mut sums, &mut totals[..live]);
            }
        }
        for strip in 0..live {
            let of_strip = totals[strip..].iter().step_by(SIDES);
            put(
                of_strip,
                x.tokens(),
                Place::new(out, rows.count(), first + strip * LANES),
            );
        }
    }
}

/// What a strip came to, token after token.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
fn put<'t>(totals: impl Iterator<Item = &'t Totals>, tokens: usize, mut place: Place<'_>) {
    let mut left = tokens;
    for totals in totals {
        let rows = each!(16, |row| x86::numbers(bytemuck::cast_ref(&totals.0[row])));
        for of_token in x86::transpose(rows).into_iter().take(left) {
            place.put::<LANES>(bytemuck::cast(x86::to_bytes(of_token)));
        }
        left = left.saturating_sub(LANES);
    }
}
