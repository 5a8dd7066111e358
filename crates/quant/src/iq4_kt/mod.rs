//! IQ4_KT: a float d per row; 256 values in 8 groups of 32 as `d·(s − 64)·level`, four levels from a seed of 15 bits, s of
//! 7 bits. It must not know the other types.

use gguf::Dtype;

use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::trellis;

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-31, a little-endian u32 per group: bit 0 moves its seeds by 2^15, bits 1-7 are s, and bits 8 + 3·i to
    /// 10 + 3·i are the bits 12 to 14 of seed i.
    groups: [[u8; 4]; 8],
    /// Bytes 32-95: the low 8 bits of the seeds.
    low: [[u8; 8]; 8],
    /// Bytes 96-127: bits 8 to 11 of the seeds of group i (low nibble) and i + 4 (high).
    high: [[u8; 8]; 4],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ4_KT;
    const LARGEST: u8 = 127;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let packed = u32::from_le_bytes(self.groups[index]);
        let first = trellis::FIRST + ((packed & 1) << 15);
        let mut levels = [0; 32];
        for (i, four) in levels.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let high = u32::from(self.high[index % 4][i] >> (4 * (index / 4)) & 15);
            let seed =
                u32::from(self.low[index][i]) | high << 8 | (packed >> (8 + 3 * i) & 7) << 12;
            *four = trellis::levels(seed + first);
        }
        let s = (packed >> 1 & 127) as i8 - 64;
        Group::new([d * f32::from(s); 2], levels)
    }
}
