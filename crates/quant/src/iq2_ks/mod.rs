//! IQ2_KS: a half d per row; 256 values in 8 groups of 32 as `d·(s − 16)·level[q]`, one of two tables of four levels per
//! group, s of 5 bits. It must not know the other types.

use gguf::Dtype;

use crate::codebook;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1, little-endian: bit i chooses the table of group i, bit 8 + i is the fifth bit of its s.
    extra: [u8; 2],
    /// Bytes 2-5: the low 4 bits of the scales, two per byte.
    scales: [u8; 4],
    /// Bytes 6-69: byte 32·h + l holds the values 128·h + 32·k + l in bits 2·k.
    qs: [[u8; 32]; 2],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ2_KS;
    const LARGEST: u8 = 32;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let extra = u16::from_le_bytes(self.extra) >> index;
        let low = self.scales[index / 2] >> (4 * (index % 2)) & 15;
        let s = low | ((extra >> 8 & 1) as u8) << 4;
        let qs = levels::bits(self.qs[index / 4], 2 * (index % 4), 3);
        let table = usize::from(extra & 1);
        let scale = d * f32::from(s as i8 - 16);
        Group::of_16([scale; 2], qs, [&codebook::IQ2_K[table]; 2])
    }
}
