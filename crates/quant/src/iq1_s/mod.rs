//! IQ1_S: 256 values in 8 groups of 32 as `d·(2s + 1) · (g ± ⅛)`: vectors of eight g in −1, 0, 1 from a grid of 2,048,
//! one sign of the eighth per group, s of 3 bits. It must not know the other types.

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
    /// Bytes 34-49, a little-endian u16 per group: the high 3 bits of grid index i in bits 3·i, s in bits 12-14, bit 15
    /// takes the eighth away.
    qh: [[u8; 2]; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ1_S;
    const WHOLE: f32 = 8.0;
    const LARGEST: u8 = 9;
    const ALIKE: usize = 32;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    /// Levels are 8·g ± 1; the scale takes the eighth, exactly.
    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let high = u16::from_le_bytes(self.qh[index]);
        let vectors = each!(4, |i| {
            let at = u16::from(self.qs[index][i]) | (high >> (3 * i) & 7) << 8;
            codebook::IQ1[usize::from(at)]
        });
        let scale = d * f32::from(2 * (high >> 12 & 7) + 1);
        Group::nudged([scale * 0.125; 2], vectors, [high >> 15 == 1; 4])
    }
}
