//! IQ1_M: 256 values in 16 sub-blocks of 16 as `d·(2s + 1) · (g ± ⅛)`: vectors of eight g in −1, 0, 1 from the grid of
//! IQ1_S, one sign of the eighth per vector, s of 3 bits. It must not know the other types.

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
    /// Bytes 0-31: the low 8 bits of each vector's grid index.
    qs: [[u8; 4]; 8],
    /// Bytes 32-47, a nibble per vector: 3 high bits of the grid index, and the bit that takes the eighth away.
    qh: [[u8; 2]; 8],
    /// Bytes 48-55, little-endian u16: s of the sub-blocks 4·i + j in bits 3·j, and on top the bits 4·i to 4·i + 3 of
    /// the half d.
    scales: [[u8; 2]; 4],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ1_M;
    const WHOLE: f32 = 8.0;
    const LARGEST: u8 = 9;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        let [a, b, c, d] = self.scales.map(|packed| u16::from_le_bytes(packed) >> 12);
        Half::from_bits(a | b << 4 | c << 8 | d << 12).get()
    }

    /// Levels are 8·g ± 1; the scales take the eighth, exactly.
    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let high = u16::from_le_bytes(self.qh[index]);
        let vectors = each!(4, |i| {
            let at = u16::from(self.qs[index][i]) | (high >> (4 * i) & 7) << 8;
            codebook::IQ1[usize::from(at)]
        });
        let lowered = each!(4, |i| high >> (4 * i + 3) & 1 == 1);
        let packed = u16::from_le_bytes(self.scales[index / 2]);
        let scales = each!(2, |half| {
            let s = packed >> (6 * (index % 2) + 3 * half) & 7;
            d * f32::from(2 * s + 1) * 0.125
        });
        Group::nudged(scales, vectors, lowered)
    }
}
