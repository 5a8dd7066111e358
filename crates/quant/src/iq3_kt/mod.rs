//! IQ3_KT: a float d per row; 256 values in 8 groups of 32 as `d·s·±|level|`, eight levels from a seed of 16 bits, s of 4
//! bits. It must not know the other types.

use gguf::Dtype;

use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::trellis;

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-3: s of group i in the low nibble, of group i + 4 in the high one.
    scales: [u8; 4],
    /// Bytes 4-67: the seeds, little-endian.
    seeds: [[[u8; 2]; 4]; 8],
    /// Bytes 68-99: byte l holds the sign of value l of group i in bit i.
    signs: [u8; 32],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ3_KT;
    const LARGEST: u8 = 127;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let s = self.scales[index % 4] >> (4 * (index / 4)) & 15;
        let mut levels = trellis::group(self.seeds[index]);
        for (level, signs) in levels.iter_mut().zip(self.signs) {
            // All ones where the sign is negative: x ^ 0 − 0 is x, x ^ −1 − (−1) is −x.
            let negative = ((signs >> index & 1) as i8).wrapping_neg();
            *level = (level.wrapping_abs() ^ negative).wrapping_sub(negative);
        }
        Group::new([d * f32::from(s); 2], levels)
    }
}
