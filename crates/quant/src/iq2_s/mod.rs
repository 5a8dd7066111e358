//! IQ2_S: 256 values in 16 sub-blocks of 16 as `d·(½ + s)/4 · ±level`: vectors of eight levels from a grid of 1,024,
//! eight signs per vector, s of 4 bits. It must not know the other types.

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
    /// Bytes 2-33: the low 8 bits of each vector's grid index.
    qs: [[u8; 4]; 8],
    /// Bytes 34-65: each vector's signs.
    signs: [[u8; 4]; 8],
    /// Bytes 66-73, one per group of 32: the high 2 bits of grid index i in bits 2·i.
    qh: [u8; 8],
    /// Bytes 74-81, one per group of 32: s of the first half in the low nibble, of the second in the high one.
    scales: [u8; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ2_S;
    const WHOLE: f32 = 8.0;
    const LARGEST: u8 = 43;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let high = usize::from(self.qh[index]);
        let vectors = each!(4, |i| {
            let at = usize::from(self.qs[index][i]) | (high >> (2 * i) & 3) << 8;
            codebook::IQ2_S[at]
        });
        let scales = [self.scales[index] & 15, self.scales[index] >> 4];
        let scales = each!(2, |half| d * (0.5 + f32::from(scales[half])) * 0.25);
        Group::signed(scales, vectors, self.signs[index])
    }
}
