//! IQ4_KSS: a float d per row; 256 values in 8 groups of 32 as `d·(s − 127)·level[q]`, one of two tables of 16 levels per
//! group, s even and of 8 bits. It must not know the other types.
//!
//! Only 15 of each 16 bits are the nibbles' own: they are stored as a Gray code without its last bit, which leaves room
//! for one bit of the group's scale byte per 16.

use gguf::Dtype;

use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::{codebook, nibbles};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-127, eight little-endian u16 per group: bit 0 of word k is bit k of the scale byte (which is as in
    /// IQ4_KS), the others hold four nibbles.
    words: [[[u8; 2]; 8]; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ4_KSS;
    const LARGEST: u8 = 127;

    #[inline(always)]
    fn scale(&self, row: f32) -> f32 {
        row
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let (mut scale, mut qs) = (0, [0; 16]);
        for (k, word) in self.words[index].into_iter().enumerate() {
            let word = u16::from_le_bytes(word);
            scale |= ((word & 1) as u8) << k;
            let gray = word & !1;
            qs[2 * k..2 * k + 2].copy_from_slice(&(gray ^ gray >> 1).to_le_bytes());
        }
        let (s, table) = levels::even_scale(scale);
        let qs = nibbles::unpack(&qs);
        Group::of_16([d * s; 2], qs, [&codebook::IQ4_K[table]; 2])
    }
}
