//! IQ3_XXS: 256 values in 8 groups of 32 as `d·(½ + s)/2 · ±level`: vectors of four levels from a grid of 256, an even
//! number of signs per eight values, s of 4 bits. It must not know the other types.

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
    /// Bytes 2-65: the grid index of each vector.
    qs: [[[u8; 2]; 4]; 8],
    /// Bytes 66-97, a little-endian u32 per group: four times 7 signs and, on top, s.
    signs: [[u8; 4]; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ3_XXS;
    const WHOLE: f32 = 4.0;
    const LARGEST: u8 = 62;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let packed = u32::from_le_bytes(self.signs[index]);
        let vectors = each!(4, |i| {
            let pair = self.qs[index][i];
            levels::join(each!(2, |j| codebook::IQ3_XXS[usize::from(pair[j])]))
        });
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.5;
        Group::signed([scale; 2], vectors, signs::even(packed))
    }
}
