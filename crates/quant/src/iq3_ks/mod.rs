//! IQ3_KS: a half d per row; 256 values in 8 groups of 32 as `d·(s − 16)·level[q]`, one of two tables of eight levels per
//! group, s of 5 bits. It must not know the other types.

use gguf::Dtype;

use crate::codebook;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1, little-endian: bit i is the fifth bit of s of group i, bit 8 + i chooses its table.
    extra: [u8; 2],
    /// Bytes 2-5: the low 4 bits of s of group i in the low nibble, of group i + 4 in the high one.
    scales: [u8; 4],
    /// Bytes 6-69: byte 32·h + l holds the low 2 bits of the values 128·h + 32·k + l in bits 2·k.
    qs: [[u8; 32]; 2],
    /// Bytes 70-101: byte l holds the third bit of the values 32·k + l in bit k.
    qh: [u8; 32],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ3_KS;
    const LARGEST: u8 = 64;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let extra = u16::from_le_bytes(self.extra) >> index;
        let low = self.scales[index % 4] >> (4 * (index / 4)) & 15;
        let s = low | ((extra & 1) as u8) << 4;
        let low = levels::bits(self.qs[index / 4], 2 * (index % 4), 3);
        let high = levels::bit(self.qh, index, 2);
        let table = usize::from(extra >> 8 & 1);
        let scale = d * f32::from(s as i8 - 16);
        let values = levels::or(low, high);
        Group::of_16([scale; 2], values, [&codebook::IQ3_K[table]; 2])
    }
}
