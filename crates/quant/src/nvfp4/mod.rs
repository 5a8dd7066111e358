//! NVFP4: 64 floats of 4 bits (E2M1) in 4 sub-blocks of 16, each times an unsigned float of 4 exponent and 3 mantissa
//! bits. It must not know the other types.

use gguf::Dtype;

use crate::codebook;
use crate::each::each;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 64>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-3: the scale of each sub-block.
    scales: [u8; 4],
    /// Bytes 4-35, 8 per sub-block: byte l holds value l below and value l + 8 above.
    qs: [[u8; 8]; 4],
}

/// Half the scale, since levels are twice the values. The pattern 0x7f is not a number and counts as zero; the eighth
/// bit is ignored elsewhere.
#[inline(always)]
fn half_scale(bits: u8) -> f32 {
    let (exponent, mantissa) = (u32::from(bits >> 3 & 15), f32::from(bits & 7));
    if bits == 0x7f {
        0.0
    } else if exponent == 0 {
        mantissa * f32::from_bits((127 - 10) << 23)
    } else {
        // (1 + m/8)·2^(e − 8)
        (8.0 + mantissa) * f32::from_bits((127 + exponent - 11) << 23)
    }
}

impl Levels<64> for Block {
    const DTYPE: Dtype = Dtype::NVFP4;
    const LARGEST: u8 = 12;

    /// There is no scale for the whole block.
    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        1.0
    }

    #[inline(always)]
    fn group(&self, _: f32, index: usize) -> Group {
        let mut values = [0; 32];
        for (half, out) in values.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (l, byte) in self.qs[2 * index + half].into_iter().enumerate() {
                (out[l], out[l + 8]) = (byte & 15, byte >> 4);
            }
        }
        let scales = each!(2, |half| half_scale(self.scales[2 * index + half]));
        Group::of_16(scales, values, [&codebook::E2M1; 2])
    }
}
