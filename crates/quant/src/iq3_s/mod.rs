//! IQ3_S: 256 values in 8 groups of 32 as `d·(1 + 2s) · ±level`: vectors of four levels from a grid of 512, a sign per
//! value, s of 4 bits. It must not know the other types.

use gguf::Dtype;

use crate::block::Half;
use crate::codebook;
use crate::each::each;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1.
    d: Half,
    /// Bytes 2-65: the low 8 bits of each vector's grid index.
    qs: [[[u8; 2]; 4]; 8],
    /// Bytes 66-73, one per group: bit i is the ninth bit of grid index i.
    qh: [u8; 8],
    /// Bytes 74-105: eight signs each.
    signs: [[u8; 4]; 8],
    /// Bytes 106-109: s of the groups 2·i and 2·i + 1 in the low and the high nibble.
    scales: [u8; 4],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ3_S;
    const LARGEST: u8 = 15;
    const ALIKE: usize = 32;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let high = usize::from(self.qh[index]);
        let vectors = each!(4, |i| {
            levels::join(each!(2, |j| {
                let at = usize::from(self.qs[index][i][j]) | (high >> (2 * i + j) & 1) << 8;
                codebook::IQ3_S[at]
            }))
        });
        let s = self.scales[index / 2] >> (4 * (index % 2)) & 15;
        let scale = d * f32::from(1 + 2 * s);
        Group::signed([scale; 2], vectors, self.signs[index])
    }
}
