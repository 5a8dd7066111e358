//! Types whose values are `scale · level` with levels of 8 bits, signed: the description of a block from which the
//! scalar reference and the vector kernels of all of them are made. It must not know any type's layout.
//!
//! Whatever a type does to pack its levels (grids, signs, trits, tables, hashes), a group of 32 comes out as bytes, and
//! that is all that a dot product sees. Decoding forms the scale first and rounds once per value after it.

#[cfg(target_arch = "x86_64")]
mod avx2;

use bytemuck::Pod;
use gguf::Dtype;

use crate::block::{self, Half};
use crate::cpu::Isa;
use crate::each::each;
use crate::int8::{self, Activations, Int8, Rows};
use crate::kernels::{Kernels, Ladder};

/// 32 consecutive values: each half's scale, and the levels in order.
pub(crate) struct Group {
    scales: [f32; 2],
    levels: Coded,
}

/// 32 levels in whichever form a vector unit takes them from best.
enum Coded {
    Levels([i8; 32]),
    /// Four vectors of eight, the first level of each in its lowest byte, and their signs: bit i set, level i negative.
    Signed([u64; 4], [u8; 4]),
    /// Four vectors of eight, to each level of which 1 is added, or −1 where its bit is set.
    Nudged([u64; 4], [u8; 4]),
    /// Values below 16, and each half's table.
    Sixteen([u8; 32], [&'static [i8; 16]; 2]),
    /// Values below 32 that stand for two levels each, and the tables of the first and of the second.
    Pairs([u8; 16], &'static [[[i8; 16]; 2]; 2]),
    /// Values below 32, and each half's table.
    ThirtyTwo([u8; 32], [&'static [[i8; 16]; 2]; 2]),
}

impl Group {
    #[inline(always)]
    pub(crate) fn new(scales: [f32; 2], levels: [i8; 32]) -> Group {
        let levels = Coded::Levels(levels);
        Group { scales, levels }
    }

    /// Vectors of eight levels, the first of each in the lowest byte; a bit set in `signs` makes its level negative.
    #[inline(always)]
    pub(crate) fn signed(scales: [f32; 2], vectors: [u64; 4], signs: [u8; 4]) -> Group {
        let levels = Coded::Signed(vectors, signs);
        Group { scales, levels }
    }

    /// Vectors of eight levels as in [`Group::signed`], plus 1, or minus 1 for the vectors that are `lowered`.
    #[inline(always)]
    pub(crate) fn nudged(scales: [f32; 2], vectors: [u64; 4], lowered: [bool; 4]) -> Group {
        let bits = each!(4, |i| if lowered[i] { 0xff } else { 0 });
        let levels = Coded::Nudged(vectors, bits);
        Group { scales, levels }
    }

    /// Values below 16 stand for entries of `tables`, which are each half's.
    #[inline(always)]
    pub(crate) fn of_16(
        scales: [f32; 2],
        values: [u8; 32],
        tables: [&'static [i8; 16]; 2],
    ) -> Group {
        let levels = Coded::Sixteen(values, tables);
        Group { scales, levels }
    }

    /// Values below 32 stand for two levels each, the first from the first table, the second from the second.
    #[inline(always)]
    pub(crate) fn pairs(
        scales: [f32; 2],
        values: [u8; 16],
        tables: &'static [[[i8; 16]; 2]; 2],
    ) -> Group {
        let levels = Coded::Pairs(values, tables);
        Group { scales, levels }
    }

    /// As [`Group::of_16`] with values below 32.
    #[inline(always)]
    pub(crate) fn of_32(
        scales: [f32; 2],
        values: [u8; 32],
        tables: [&'static [[i8; 16]; 2]; 2],
    ) -> Group {
        let levels = Coded::ThirtyTwo(values, tables);
        Group { scales, levels }
    }
}

impl Coded {
    fn levels(&self) -> [i8; 32] {
        let mut levels = [0; 32];
        for (i, level) in levels.iter_mut().enumerate() {
            *level = match self {
                Coded::Levels(levels) => levels[i],
                Coded::Signed(vectors, signs) => {
                    let level = vectors[i / 8].to_le_bytes()[i % 8] as i8;
                    if signs[i / 8] >> (i % 8) & 1 == 0 {
                        level
                    } else {
                        -level
                    }
                }
                Coded::Nudged(vectors, bits) => {
                    let level = vectors[i / 8].to_le_bytes()[i % 8] as i8;
                    if bits[i / 8] >> (i % 8) & 1 == 0 {
                        level + 1
                    } else {
                        level - 1
                    }
                }
                Coded::Sixteen(values, tables) => tables[i / 16][usize::from(values[i] & 15)],
                Coded::Pairs(values, tables) => {
                    let value = usize::from(values[i / 2]);
                    tables[i % 2][value / 16][value % 16]
                }
                Coded::ThirtyTwo(values, tables) => {
                    tables[i / 16][usize::from(values[i] >> 4 & 1)][usize::from(values[i] & 15)]
                }
            };
        }
        levels
    }
}

/// Eight levels from two vectors of four.
#[inline(always)]
pub(crate) fn join([low, high]: [u32; 2]) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The bits of `mask` of every byte, after a shift to the right.
#[inline(always)]
pub(crate) fn bits(mut bytes: [u8; 32], shift: usize, mask: u8) -> [u8; 32] {
    for byte in &mut bytes {
        *byte = *byte >> shift & mask;
    }
    bytes
}

/// Bit `from` of every byte, as its bit `to`.
#[inline(always)]
pub(crate) fn bit(mut bytes: [u8; 32], from: usize, to: usize) -> [u8; 32] {
    for byte in &mut bytes {
        *byte = (*byte >> from & 1) << to;
    }
    bytes
}

/// Low and high bits of 32 values, together.
#[inline(always)]
pub(crate) fn or(low: [u8; 32], high: [u8; 32]) -> [u8; 32] {
    let mut both = low;
    for (both, high) in both.iter_mut().zip(high) {
        *both |= high;
    }
    both
}

/// s − 32 of the two halves of a group: sixteen s of 6 bits, the low four of two in a byte, the high two of four.
#[inline(always)]
pub(crate) fn six_bits(high: [u8; 4], low: [u8; 8], group: usize) -> [f32; 2] {
    let high = (u32::from_le_bytes(high) >> (4 * group)) as u8;
    let pair = [
        low[group] & 15 | (high & 3) << 4,
        low[group] >> 4 | (high & 12) << 2,
    ];
    each!(2, |half| f32::from(pair[half] as i8 - 32))
}

/// s − 127 of a byte whose upper seven bits are s/2, and the lowest bit.
#[inline(always)]
pub(crate) fn even_scale(byte: u8) -> (f32, usize) {
    (
        f32::from(i16::from(byte & 254) - 127),
        usize::from(byte & 1),
    )
}

/// A block of `N` values, a multiple of 32 up to 256. As for [`block::Block`], implementors are `repr(C)` structs of bytes.
///
/// Implementations are `#[inline(always)]`, so that the code is compiled for the instruction set of the kernel it is
/// part of.
pub(crate) trait Levels<const N: usize>: Pod {
    const DTYPE: Dtype;

    /// The block scale with which the scales of all groups are whole numbers of at most 128: a power of two. Does not
    /// matter to blocks of 32.
    const WHOLE: f32 = 1.0;

    /// The largest level in magnitude.
    const LARGEST: u8;

    /// Values in a row that have one scale: 16, or 32 where both halves of every group have the same.
    const ALIKE: usize = 16;

    /// The scale that all groups of the block share: the block's own, or `row`, the one that precedes the row.
    fn scale(&self, row: f32) -> f32;

    /// Values 32·index to 32·index + 31; `scale` is what [`Levels::scale`] gave.
    fn group(&self, scale: f32, index: usize) -> Group;
}

/// Scale and blocks of a row. A row too short for its scale has no blocks; types that keep no scale per row see 1.
#[inline(always)]
fn split<B: Levels<N>, const N: usize>(row: &[u8]) -> (f32, &[B]) {
    let Some((prefix, row)) = row.split_at_checked(B::DTYPE.row_prefix_bytes()) else {
        return (0.0, &[]);
    };
    let scale = match *prefix {
        [a, b] => Half::from_bits(u16::from_le_bytes([a, b])).get(),
        [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
        _ => 1.0,
    };
    (scale, block::blocks(row))
}

/// The kernels of a type, on every instruction set.
pub(crate) const fn ladder<B: Levels<N>, const N: usize>() -> Ladder {
    assert!(size_of::<B>() == B::DTYPE.block_bytes());
    assert!(align_of::<B>() == 1);
    assert!(N == B::DTYPE.block_values() && N.is_multiple_of(32) && N <= 256);
    assert!(matches!(B::DTYPE.row_prefix_bytes(), 0 | 2 | 4));
    let scalar = Ladder::new(Kernels {
        dtype: B::DTYPE,
        isa: Isa::Scalar,
        dequantize: dequantize::<B, N>,
        dot: dot::<B, N>,
        int8: Int8::of(N, multiply::<B, N>),
    });
    #[cfg(target_arch = "x86_64")]
    {
        let dot = scalar.with(Isa::Avx2, avx2::dot::<B, N>);
        match N {
            256 => dot.products(avx2::superblocks::<B, N>()),
            32 => dot.products(avx2::smallblocks::<B, N>()),
            _ => dot,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    scalar
}

fn decode<B: Levels<N>, const N: usize>(block: &B, row: f32, out: &mut [f32; N]) {
    let scale = block.scale(row);
    for (index, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let group = block.group(scale, index);
        for (i, (out, level)) in out.iter_mut().zip(group.levels.levels()).enumerate() {
            *out = group.scales[i / 16] * f32::from(level);
        }
    }
}

fn dequantize<B: Levels<N>, const N: usize>(row: &[u8], out: &mut [f32]) {
    let (scale, blocks) = split::<B, N>(row);
    for (block, out) in blocks.iter().zip(out.as_chunks_mut().0) {
        decode(block, scale, out);
    }
}

fn dot<B: Levels<N>, const N: usize>(row: &[u8], x: &[f32]) -> f32 {
    let (scale, blocks) = split::<B, N>(row);
    let mut weights = [0.0; N];
    let mut sum = 0.0;
    for (block, x) in blocks.iter().zip(x.as_chunks::<N>().0) {
        decode(block, scale, &mut weights);
        sum += f64::from(block::dot_f32(&weights, x));
    }
    sum as f32
}

fn multiply<B: Levels<N>, const N: usize>(rows: Rows<'_>, x: &Activations, out: &mut [f32]) {
    int8::multiply(rows, x, out, split::<B, N>, decode::<B, N>);
}
