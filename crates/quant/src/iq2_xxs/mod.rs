//! IQ2_XXS: 256 values in 8 groups of 32 as `d·(½ + s)/4 · ±level`: vectors of eight levels from a grid of 256, an even
//! number of signs per vector, s of 4 bits. It must not know the other types.

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
    /// Bytes 2-65, 8 per group: four grid indices, then a little-endian u32 of four times 7 signs and, on top, s.
    groups: [[[u8; 4]; 2]; 8],
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::IQ2_XXS;
    const WHOLE: f32 = 8.0;
    const LARGEST: u8 = 43;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let [indices, packed] = self.groups[index];
        let packed = u32::from_le_bytes(packed);
        let vectors = each!(4, |i| codebook::IQ2_XXS[usize::from(indices[i])]);
        let scale = d * (0.5 + (packed >> 28) as f32) * 0.25;
        Group::signed([scale; 2], vectors, signs::even(packed))
    }
}
