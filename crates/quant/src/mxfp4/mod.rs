//! MXFP4: 32 floats of 4 bits (E2M1) times a power of two (E8M0), from the OCP Microscaling Formats 1.0. It must not know
//! the other types.

use gguf::Dtype;

use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::{codebook, nibbles};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 32>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Byte 0: e of the scale 2^(e − 127).
    exponent: u8,
    /// Bytes 1-16, nibbles as in Q4_0.
    qs: [u8; 16],
}

impl Levels<32> for Block {
    const DTYPE: Dtype = Dtype::MXFP4;
    const LARGEST: u8 = 12;
    const ALIKE: usize = 32;

    /// Half the scale, since levels are twice the values: 2^(e − 128), below 2^−126 as a subnormal float.
    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        let exponent = u32::from(self.exponent);
        f32::from_bits(if exponent < 2 {
            0x0020_0000 << exponent
        } else {
            (exponent - 1) << 23
        })
    }

    #[inline(always)]
    fn group(&self, scale: f32, _: usize) -> Group {
        Group::of_16([scale; 2], nibbles::unpack(&self.qs), [&codebook::E2M1; 2])
    }
}
