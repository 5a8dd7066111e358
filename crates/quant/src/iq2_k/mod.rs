//! IQ2_K: 256 values in 16 sub-blocks of 16 as `d·(s − 8)·level[q]`, one of two tables of four levels per sub-block, s of
//! 4 bits. It must not know the other types.

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
    /// Bytes 4-11, one per group of 32: s of the first half in the low nibble, of the second in the high one.
    scales: [u8; 8],
    /// Bytes 12-75: byte 32·h + l holds the values 128·h + 32·k + l in bits 2·k.
    qs: [[u8; 32]; 2],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ2_K;
    const LARGEST: u8 = 32;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let extra = usize::from(u16::from_le_bytes(self.extra)) >> (2 * index);
        let scales = [self.scales[index] & 15, self.scales[index] >> 4];
        let qs = levels::bits(self.qs[index / 4], 2 * (index % 4), 3);
        let scales = each!(2, |half| d * f32::from(scales[half] as i8 - 8));
        let tables = each!(2, |half| &codebook::IQ2_K[extra >> half & 1]);
        Group::of_16(scales, qs, tables)
    }
}
