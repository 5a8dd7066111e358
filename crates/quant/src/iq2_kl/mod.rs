//! IQ2_KL: a half d per row; 256 values in 8 groups of 32 as `d·(s − 32)·level`, pairs of levels from a table of 32, s of
//! 6 bits. It must not know the other types.

use gguf::Dtype;

use crate::codebook;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1, little-endian: the high 2 bits of s of group i in bits 2·i.
    scales_h: [u8; 2],
    /// Bytes 2-5: the low 4 bits of s of group i in the low nibble, of group i + 4 in the high one.
    scales_l: [u8; 4],
    /// Bytes 6-69: byte 16·k + l holds the low 4 bits of pair l of the groups 2·k (low nibble) and 2·k + 1 (high).
    qs: [[u8; 16]; 4],
    /// Bytes 70-85: byte l holds the fifth bit of pair l of group i in bit i.
    qh: [u8; 16],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ2_KL;
    const LARGEST: u8 = 64;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let low = self.scales_l[index % 4] >> (4 * (index / 4)) & 15;
        let high = (u16::from_le_bytes(self.scales_h) >> (2 * index) & 3) as u8;
        let s = (low | high << 4) as i8 - 32;
        let mut values = self.qs[index / 2];
        for (value, high) in values.iter_mut().zip(self.qh) {
            *value = *value >> (4 * (index % 2)) & 15 | (high >> index & 1) << 4;
        }
        Group::pairs([d * f32::from(s); 2], values, &codebook::IQ2_KL)
    }
}
