//! IQ5_KS: a float d per row; 256 values in 8 groups of 32 as `d·(s − 127)·level[q]`, one of two tables of 32 levels per
//! group, s even and of 8 bits. It must not know the other types.

use gguf::Dtype;

use crate::codebook;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-7, one per group: s, and in its lowest bit which table.
    scales: [u8; 8],
    /// Bytes 8-135: byte 32·k + l holds the low 4 bits of the values 64·k + l (low nibble) and 64·k + 32 + l (high).
    qs: [[u8; 32]; 4],
    /// Bytes 136-167: byte l holds the fifth bit of the values 32·k + l in bit k.
    qh: [u8; 32],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ5_KS;
    const LARGEST: u8 = 127;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let (s, table) = levels::even_scale(self.scales[index]);
        let low = levels::bits(self.qs[index / 2], 4 * (index % 2), 15);
        let high = levels::bit(self.qh, index, 4);
        let qs = levels::or(low, high);
        Group::of_32([d * s; 2], qs, [&codebook::IQ5_K[table]; 2])
    }
}
