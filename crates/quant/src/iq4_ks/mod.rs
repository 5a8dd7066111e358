//! IQ4_KS: a float d per row; 256 values in 8 groups of 32 as `d·(s − 127)·level[q]`, one of two tables of 16 levels per
//! group, s even and of 8 bits. It must not know the other types.

use gguf::Dtype;

use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::{codebook, nibbles};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-7, one per group: s, and in its lowest bit which table.
    scales: [u8; 8],
    /// Bytes 8-135, 16 bytes per group, nibbles as in Q4_0.
    qs: [[u8; 16]; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ4_KS;
    const LARGEST: u8 = 127;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let (s, table) = levels::even_scale(self.scales[index]);
        let qs = nibbles::unpack(&self.qs[index]);
        Group::of_16([d * s; 2], qs, [&codebook::IQ4_K[table]; 2])
    }
}
