//! Activations rounded to eight bits, and products of weight rows with them. Tokens are laid out in tiles, so that a
//! kernel loads a weight once and uses it for every token of the tile. It must not know any type's layout.
//!
//! What a token's product with a row is depends neither on the tokens nor on the rows beside them: each has its own sum,
//! added in one order.

#[cfg(target_arch = "x86_64")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod paths;
#[cfg(target_arch = "x86_64")]
pub(crate) mod strip;
#[cfg(target_arch = "x86_64")]
pub(crate) mod vnni;

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

use crate::block::dot_f32;

/// Levels run from −127 to 127.
const LEVELS: f32 = 127.0;

/// How many values of a token share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Grain {
    /// For types whose blocks hold 256 values: their integer scales then multiply whole superblocks.
    Of256,
    /// For types whose blocks hold 32 values.
    Of32,
}

impl Grain {
    /// The grain for a type's blocks; `None` where values have no blocks, or blocks of another size.
    const fn of(block_values: usize) -> Option<Grain> {
        match block_values {
            256 => Some(Grain::Of256),
            32 => Some(Grain::Of32),
            _ => None,
        }
    }
}

/// A product as in [`Int8::multiply`].
pub(crate) type Multiply = fn(rows: Rows<'_>, x: &Activations, out: &mut [f32]);

/// Neighbouring rows of a tensor.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'w> {
    bytes: &'w [u8],
    row_bytes: usize,
}

impl<'w> Rows<'w> {
    /// Rows of `row_bytes` bytes each; what is beyond the last whole row is ignored.
    pub fn new(bytes: &'w [u8], row_bytes: usize) -> Self {
        Self { bytes, row_bytes }
    }

    /// How many rows there are.
    pub fn count(&self) -> usize {
        self.bytes.len().checked_div(self.row_bytes).unwrap_or(0)
    }

    /// One of them; empty where there is no such row.
    fn row(&self, row: usize) -> &'w [u8] {
        let start = row * self.row_bytes;
        self.bytes
            .get(start..start + self.row_bytes)
            .unwrap_or_default()
    }
}

impl Int8 {
    /// The product of a type with blocks of that many values.
    pub(crate) const fn of(block_values: usize, multiply: Multiply) -> Option<Int8> {
        match Grain::of(block_values) {
            Some(grain) => Some(Int8 { grain, multiply }),
            None => None,
        }
    }
}

/// The product of weight rows with activations.
#[derive(Clone, Copy, Debug)]
pub struct Int8 {
    /// The grain of the activations that `multiply` takes. Others give zeros.
    pub grain: Grain,
    /// out\[t·rows + r\] = Σ row r\[i\]·token t\[i\], with `out.len() == tokens·rows`. Weights and activations are what
    /// their blocks say; only the additions round, within `(n/8 + 8)·ε·Σ|row\[i\]·x\[i\]|` for `n` values, ε = 2⁻²³.
    pub multiply: fn(rows: Rows<'_>, x: &Activations, out: &mut [f32]),
}

/// Activations of some tokens, tile after tile.
#[derive(Clone, Debug)]
pub struct Activations {
    tiles: Vec<Tile>,
    tokens: usize,
    /// The same, made by the first product that wants it.
    #[cfg(target_arch = "x86_64")]
    turned: OnceLock<amx::Tokens>,
}

impl Activations {
    /// Rounds tokens × cols values. Values beyond the last whole block of a token are not represented: `cols` is the
    /// row length of a weight of this grain, hence whole blocks.
    pub fn quantize(grain: Grain, x: &[f32], cols: usize) -> Activations {
        let mut rows = x.chunks_exact(cols.max(1)).collect::<Vec<_>>();
        let tokens = rows.len();
        let mut tiles = Vec::new();
        while !rows.is_empty() {
            let rest = rows.split_off(tile_width(rows.len()));
            tiles.push(Tile::quantize(grain, &rows));
            rows = rest;
        }
        Activations::new(tiles, tokens)
    }

    /// Puts tokens together that were quantized apart, in the order of the parts.
    pub fn join(parts: Vec<Activations>) -> Activations {
        let tokens = parts.iter().map(Activations::tokens).sum();
        let tiles = parts.into_iter().flat_map(|part| part.tiles).collect();
        Activations::new(tiles, tokens)
    }

    fn new(tiles: Vec<Tile>, tokens: usize) -> Activations {
        Activations {
            tiles,
            tokens,
            #[cfg(target_arch = "x86_64")]
            turned: OnceLock::new(),
        }
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The tiles, in the order of the tokens.
    pub(crate) fn tiles(&self) -> &[Tile] {
        &self.tiles
    }
}

/// The widest tile that `tokens` fill.
fn tile_width(tokens: usize) -> usize {
    match tokens {
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// Activations of 1, 2 or 4 tokens, block by block.
#[derive(Clone, Debug)]
pub(crate) struct Tile(pub(crate) Width);

#[derive(Clone, Debug)]
pub(crate) enum Width {
    One(Blocks<1>),
    Two(Blocks<2>),
    Four(Blocks<4>),
}

/// A tile's blocks, of one grain.
#[derive(Clone, Debug)]
pub(crate) enum Blocks<const T: usize> {
    Of256(Vec<Block256<T>>),
    Of32(Vec<Block32<T>>),
}

/// 256 values of `T` tokens.
#[derive(Clone, Debug)]
pub(crate) struct Block256<const T: usize> {
    /// Value = scale·level.
    pub(crate) scales: [f32; T],
    /// Sums of 16 levels each: those of the first halves of the eight 32-value groups, then of the second halves.
    pub(crate) sums: [[i16; 16]; T],
    /// By group of 32, then token.
    pub(crate) levels: [[[i8; 32]; T]; 8],
}

/// 32 values of `T` tokens.
#[derive(Clone, Debug)]
pub(crate) struct Block32<const T: usize> {
    /// Value = scale·level.
    pub(crate) scales: [f32; T],
    /// Sums of the 32 values (not of the levels).
    pub(crate) sums: [f32; T],
    /// Sums of the levels.
    pub(crate) level_sums: [i32; T],
    pub(crate) levels: [[i8; 32]; T],
}

impl Tile {
    fn quantize(grain: Grain, rows: &[&[f32]]) -> Tile {
        Tile(match *rows {
            [a, b, c, d] => Width::Four(Blocks::quantize(grain, [a, b, c, d])),
            [a, b] => Width::Two(Blocks::quantize(grain, [a, b])),
            _ => Width::One(Blocks::quantize(
                grain,
                [rows.first().copied().unwrap_or(&[])],
            )),
        })
    }

    /// Tokens in the tile.
    pub(crate) fn tokens(&self) -> usize {
        match self.0 {
            Width::One(_) => 1,
            Width::Two(_) => 2,
            Width::Four(_) => 4,
        }
    }
}

impl<const T: usize> Blocks<T> {
    fn quantize(grain: Grain, rows: [&[f32]; T]) -> Self {
        match grain {
            Grain::Of256 => Blocks::Of256(each_block(rows, Block256::quantize)),
            Grain::Of32 => Blocks::Of32(each_block(rows, Block32::quantize)),
        }
    }
}

/// What `make` makes of every whole block of `N` columns.
fn each_block<B, const N: usize, const T: usize>(
    rows: [&[f32]; T],
    make: impl Fn([&[f32; N]; T]) -> B,
) -> Vec<B> {
    let rows = rows.map(|row| row.as_chunks::<N>().0);
    let count = rows.map(<[_]>::len).into_iter().min().unwrap_or(0);
    (0..count)
        .map(|at| make(rows.map(|row| &row[at])))
        .collect()
}

impl<const T: usize> Block256<T> {
    fn quantize(values: [&[f32; 256]; T]) -> Self {
        let mut block = Block256 {
            scales: [0.0; T],
            sums: [[0; 16]; T],
            levels: [[[0; 32]; T]; 8],
        };
        for (token, values) in values.into_iter().enumerate() {
            let (scale, inverse) = scale(values);
            block.scales[token] = scale;
            for (group, values) in values.as_chunks::<32>().0.iter().enumerate() {
                let levels = round(values, inverse);
                for (half, levels) in levels.as_chunks::<16>().0.iter().enumerate() {
                    block.sums[token][8 * half + group] =
                        levels.iter().map(|q| i16::from(*q)).sum();
                }
                block.levels[group][token] = levels;
            }
        }
        block
    }
}

impl<const T: usize> Block32<T> {
    fn quantize(values: [&[f32; 32]; T]) -> Self {
        let mut block = Block32 {
            scales: [0.0; T],
            sums: [0.0; T],
            level_sums: [0; T],
            levels: [[0; 32]; T],
        };
        for (token, values) in values.into_iter().enumerate() {
            let (scale, inverse) = scale(values);
            let levels = round(values, inverse);
            let sum: i16 = levels.iter().map(|q| i16::from(*q)).sum();
            block.scales[token] = scale;
            block.sums[token] = scale * f32::from(sum);
            block.level_sums[token] = sum.into();
            block.levels[token] = levels;
        }
        block
    }
}

/// The value of one level and its inverse; both zero for a block of zeros. The value is NaN where one of the values is
/// not finite.
fn scale(values: &[f32]) -> (f32, f32) {
    // As integers, magnitudes are in the order of their values, infinity above them and NaN above that: no `max` of floats
    // keeps a NaN.
    let mut largest = [0; 8];
    for values in values.as_chunks::<8>().0 {
        for (largest, value) in largest.iter_mut().zip(values) {
            *largest = value.abs().to_bits().max(*largest);
        }
    }
    let largest = f32::from_bits(largest.into_iter().fold(0, u32::max));
    let scale = largest / LEVELS;
    // A scale below the normal range has no finite inverse; such activations are zeros to every product.
    if scale.is_normal() {
        (scale, scale.recip())
    } else if largest.is_finite() {
        (0.0, 0.0)
    } else {
        (f32::NAN, 0.0)
    }
}

/// The nearest levels. Adding 1.5·2²³ leaves the rounded integer in the low bits of a float (|value·inverse| is at most
/// 127 and a bit): `f32::round` would be a library call per value.
fn round(values: &[f32; 32], inverse: f32) -> [i8; 32] {
    const MAGIC: f32 = 12_582_912.0;
    values.map(|value| (value * inverse + MAGIC).to_bits() as i8)
}

/// The reference product: both sides of every block decoded to floats. `decode` is given what `see` finds before a row.
pub(crate) fn multiply<B, const N: usize>(
    rows: Rows<'_>,
    x: &Activations,
    out: &mut [f32],
    see: for<'w> fn(&'w [u8]) -> (f32, &'w [B]),
    decode: impl Fn(&B, f32, &mut [f32; N]),
) {
    let tokens = x
        .tiles()
        .iter()
        .flat_map(|tile| (0..tile.tokens()).map(move |token| (tile, token)));
    for ((tile, token), out) in tokens.zip(out.chunks_exact_mut(rows.count().max(1))) {
        for (row, out) in out.iter_mut().enumerate() {
            let (scale, blocks) = see(rows.row(row));
            *out = product(
                blocks,
                |block, values| decode(block, scale, values),
                tile,
                token,
            );
        }
    }
}

fn product<B, const N: usize>(
    blocks: &[B],
    decode: impl Fn(&B, &mut [f32; N]),
    tile: &Tile,
    token: usize,
) -> f32 {
    let mut weights = [0.0; N];
    let mut values = [0.0; N];
    let mut sum = 0.0;
    for (at, block) in blocks.iter().enumerate() {
        if !tile.decode(token, at, &mut values) {
            break;
        }
        decode(block, &mut weights);
        sum += f64::from(dot_f32(&weights, &values));
    }
    sum as f32
}

impl Tile {
    /// The values of a token's block; false where the tile has no such block of that many values.
    fn decode(&self, token: usize, at: usize, out: &mut [f32]) -> bool {
        match &self.0 {
            Width::One(blocks) => blocks.decode(token, at, out),
            Width::Two(blocks) => blocks.decode(token, at, out),
            Width::Four(blocks) => blocks.decode(token, at, out),
        }
        .is_some()
    }
}

impl<const T: usize> Blocks<T> {
    fn decode(&self, token: usize, at: usize, out: &mut [f32]) -> Option<()> {
        let fill = |out: &mut [f32], levels: &[i8; 32], scale: f32| {
            for (out, level) in out.iter_mut().zip(levels) {
                *out = scale * f32::from(*level);
            }
        };
        match self {
            Blocks::Of256(blocks) if out.len() == 256 => {
                let block = blocks.get(at)?;
                let scale = *block.scales.get(token)?;
                for (group, out) in block.levels.iter().zip(out.as_chunks_mut::<32>().0) {
                    fill(out, &group[token], scale);
                }
            }
            Blocks::Of32(blocks) if out.len() == 32 => {
                let block = blocks.get(at)?;
                fill(out, block.levels.get(token)?, *block.scales.get(token)?);
            }
            Blocks::Of256(_) | Blocks::Of32(_) => return None,
        }
        Some(())
    }
}
