//! IQ4_K: 256 values in 16 sub-blocks of 16 as `d·(s − 32)·level[q]`, one of two tables of 16 levels per sub-block, s of
//! 6 bits. It must not know the other types.

use gguf::Dtype;

use crate::block::Half;
use crate::each::each;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::{codebook, nibbles};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1.
    d: Half,
    /// Bytes 2-3, little-endian: bit i chooses the table of sub-block i.
    extra: [u8; 2],
    /// Bytes 4-7, little-endian: the high 2 bits of scale s in bits 2·s.
    scales_h: [u8; 4],
    /// Bytes 8-15: the low 4 bits of the scales, two per byte.
    scales_l: [u8; 8],
    /// Bytes 16-143, 16 bytes per group of 32, nibbles as in Q4_0.
    qs: [[u8; 16]; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ4_K;
    const LARGEST: u8 = 127;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let extra = usize::from(u16::from_le_bytes(self.extra)) >> (2 * index);
        let s = levels::six_bits(self.scales_h, self.scales_l, index);
        let tables = each!(2, |half| &codebook::IQ4_K[extra >> half & 1]);
        Group::of_16(
            each!(2, |half| d * s[half]),
            nibbles::unpack(&self.qs[index]),
            tables,
        )
    }
}
