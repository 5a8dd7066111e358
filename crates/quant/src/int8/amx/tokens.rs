//! Activations as tiles take them: sixteen tokens side by side, four levels of each in a row. It must not know weights.

use std::arch::x86_64::*;

use super::super::{Activations, Block32, Block256, Blocks, Width};
use super::tiles::{LANES, Right, Tile};
use crate::each::each;
use crate::x86::avx512 as x86;

/// All tokens, sixteen at a time: of block `b` those from `16·t` on are at `b·count + t`.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    wide: Vec<Wide>,
    narrow: Vec<Narrow>,
    /// Sixteens of tokens.
    pub(super) count: usize,
}

/// 256 values of sixteen tokens; where there are fewer, the others are zeros.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Wide {
    /// By 64 values. Of the two groups of 32 in them, eight values of the first and eight of the second take turns: it is
    /// the order in which vectors of weights are packed.
    pub(super) levels: [Tile; 4],
    pub(super) scales: [f32; LANES],
    /// Of every token the pairs of sums, in the order of [`Block256::sums`].
    pub(super) sums: [[[i16; 2]; LANES]; 8],
}

/// 32 values of sixteen tokens.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Narrow {
    pub(super) levels: Right,
    pub(super) scales: [f32; LANES],
    /// Of the values, as [`Block32::sums`].
    pub(super) sums: [f32; LANES],
}

impl Tokens {
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    pub(super) fn new(x: &Activations) -> Tokens {
        let mut tokens = Tokens {
            wide: Vec::new(),
            narrow: Vec::new(),
            count: x.tokens().div_ceil(LANES),
        };
        let mut first = 0;
        for tile in x.tiles() {
            match &tile.0 {
                Width::One(blocks) => tokens.put(first, blocks),
                Width::Two(blocks) => tokens.put(first, blocks),
                Width::Four(blocks) => tokens.put(first, blocks),
            }
            first += tile.tokens();
        }
        for wide in &mut tokens.wide {
            wide.turn();
        }
        for narrow in &mut tokens.narrow {
            narrow.turn();
        }
        tokens
    }

    /// A block of every token.
    pub(super) fn wide(&self, block: usize) -> &[Wide] {
        let all = block * self.count..(block + 1) * self.count;
        self.wide.get(all).unwrap_or_default()
    }

    /// A block of every token.
    pub(super) fn narrow(&self, block: usize) -> &[Narrow] {
        let all = block * self.count..(block + 1) * self.count;
        self.narrow.get(all).unwrap_or_default()
    }

    /// Takes a tile of tokens over, each in a row of its own.
    fn put<const T: usize>(&mut self, first: usize, blocks: &Blocks<T>) {
        let (sixteen, lane) = (first / LANES, first % LANES);
        match blocks {
            Blocks::Of256(blocks) => {
                self.wide.resize(blocks.len() * self.count, Wide::ZERO);
                let places = self.wide.iter_mut().skip(sixteen).step_by(self.count);
                for (place, block) in places.zip(blocks) {
                    place.put(lane, block);
                }
            }
            Blocks::Of32(blocks) => {
                self.narrow.resize(blocks.len() * self.count, Narrow::ZERO);
                let places = self.narrow.iter_mut().skip(sixteen).step_by(self.count);
                for (place, block) in places.zip(blocks) {
                    place.put(lane, block);
                }
            }
        }
    }
}

impl Wide {
    const ZERO: Wide = Wide {
        levels: [Tile::ZERO; 4],
        scales: [0.0; LANES],
        sums: [[[0; 2]; LANES]; 8],
    };

    /// The tokens of a tile begin at a whole multiple of their number, so that they never part.
    fn put<const T: usize>(&mut self, first: usize, block: &Block256<T>) {
        for token in 0..T {
            let lane = (first + token) % LANES;
            self.scales[lane] = block.scales[token];
            let sums = block.sums[token].as_chunks::<2>().0;
            for (of_all, pair) in self.sums.iter_mut().zip(sums) {
                of_all[lane] = *pair;
            }
            for (groups, tile) in block.levels.as_chunks::<2>().0.iter().zip(&mut self.levels) {
                let row = tile.0[lane].as_chunks_mut::<32>().0;
                for (row, group) in row.iter_mut().zip(groups) {
                    *row = bytemuck::cast(group[token]);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn turn(&mut self) {
        for tile in &mut self.levels {
            let quads = x86::transpose(each!(16, |token| x86::bytes64(&tile.0[token])));
            for (at, quads) in quads.into_iter().enumerate() {
                let (group, quad) = (at / 8, at % 8);
                tile.0[4 * (quad / 2) + 2 * group + quad % 2] = x86::to_bytes(quads);
            }
        }
    }
}

impl Narrow {
    const ZERO: Narrow = Narrow {
        levels: Right::ZERO,
        scales: [0.0; LANES],
        sums: [0.0; LANES],
    };

    fn put<const T: usize>(&mut self, first: usize, block: &Block32<T>) {
        for token in 0..T {
            let lane = (first + token) % LANES;
            self.scales[lane] = block.scales[token];
            self.sums[lane] = block.sums[token];
            // Two tokens lie in a row until they are turned.
            let rows = self.levels.0.as_flattened_mut().as_chunks_mut::<32>().0;
            rows[lane] = bytemuck::cast(block.levels[token]);
        }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
    fn turn(&mut self) {
        let rows = self.levels.0.as_flattened().as_chunks::<32>().0;
        let wide = |token: usize| _mm512_zextsi256_si512(crate::x86::avx2::bytes32(&rows[token]));
        let quads = x86::transpose(each!(16, |token| wide(token)));
        for (row, quads) in self.levels.0.iter_mut().zip(quads) {
            *row = x86::to_bytes(quads);
        }
    }
}
