//! IQ1_KT: a float d per row; 256 values in 8 groups of 32 as `d·scale[s]·level`, eight levels from a seed of 13 bits,
//! s of 4 bits. It must not know the other types.

use gguf::Dtype;

use crate::codebook;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::trellis;

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-7, one per group: s in the low nibble, bit 4 + i is the thirteenth bit of seed i.
    scales: [u8; 8],
    /// Bytes 8-39: the low 8 bits of the seeds.
    low: [[u8; 4]; 8],
    /// Bytes 40-55: bits 8 to 11 of the seeds of group i (low nibble) and i + 4 (high).
    high: [[u8; 4]; 4],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ1_KT;
    const LARGEST: u8 = 127;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let top = u32::from(self.scales[index]);
        let mut levels = [0; 32];
        for (i, eight) in levels.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let high = u32::from(self.high[index % 4][i] >> (4 * (index / 4)) & 15);
            let seed = u32::from(self.low[index][i]) | high << 8 | (top >> (4 + i) & 1) << 12;
            *eight = trellis::levels(seed + trellis::FIRST);
        }
        let scale = codebook::IQ4_K[0][usize::from(self.scales[index] & 15)];
        Group::new([d * f32::from(scale); 2], levels)
    }
}
