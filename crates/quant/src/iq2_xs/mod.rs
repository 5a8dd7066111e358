//! IQ2_XS: 256 values in 16 sub-blocks of 16 as `d·(½ + s)/4 · ±level`: vectors of eight levels from a grid of 512, an
//! even number of signs per vector, s of 4 bits. It must not know the other types.

use gguf::Dtype;

use crate::block::Half;
use crate::each::each;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::{codebook, signs};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1.
    d: Half,
    /// Bytes 2-65, a little-endian u16 per vector: 9 bits of grid index, 7 of signs.
    vectors: [[[u8; 2]; 4]; 8],
    /// Bytes 66-73, one per group of 32: s of the first half in the low nibble, of the second in the high one.
    scales: [u8; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ2_XS;
    const WHOLE: f32 = 8.0;
    const LARGEST: u8 = 43;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let packed = each!(4, |i| u16::from_le_bytes(self.vectors[index][i]));
        let vectors = each!(4, |i| codebook::IQ2_XS[usize::from(packed[i] & 511)]);
        let [first, second, third, fourth] = each!(4, |i| u32::from(packed[i] >> 9));
        let signs = signs::even(first | second << 7 | third << 14 | fourth << 21);
        let scales = [self.scales[index] & 15, self.scales[index] >> 4];
        let scales = each!(2, |half| d * (0.5 + f32::from(scales[half])) * 0.25);
        Group::signed(scales, vectors, signs)
    }
}
