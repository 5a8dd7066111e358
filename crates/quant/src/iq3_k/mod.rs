//! IQ3_K: 256 values in 16 sub-blocks of 16 as `±d·(2s + 1)·level[q]`, one of two tables of eight levels per sub-block,
//! s of 4 bits. It must not know the other types.

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
    /// Bytes 2-3, little-endian: bit i chooses the table of sub-block i.
    extra: [u8; 2],
    /// Bytes 4-5, little-endian: bit i makes the scale of sub-block i negative.
    signs: [u8; 2],
    /// Bytes 6-13, one per group of 32: s of the first half in the low nibble, of the second in the high one.
    scales: [u8; 8],
    /// Bytes 14-77: byte 32·h + l holds the low 2 bits of the values 128·h + 32·k + l in bits 2·k.
    qs: [[u8; 32]; 2],
    /// Bytes 78-109: byte l holds the third bit of the values 32·k + l in bit k.
    qh: [u8; 32],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ3_K;
    const LARGEST: u8 = 64;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let extra = usize::from(u16::from_le_bytes(self.extra)) >> (2 * index);
        let signs = u16::from_le_bytes(self.signs) >> (2 * index);
        let scales = [self.scales[index] & 15, self.scales[index] >> 4];
        let low = levels::bits(self.qs[index / 4], 2 * (index % 4), 3);
        let high = levels::bit(self.qh, index, 2);
        let scales = each!(2, |half| {
            let s = 2 * scales[half] as i8 + 1;
            d * f32::from(if signs >> half & 1 == 0 { s } else { -s })
        });
        let tables = each!(2, |half| &codebook::IQ3_K[extra >> half & 1]);
        Group::of_16(scales, levels::or(low, high), tables)
    }
}
