//! TQ2_0: 256 values as `d·(q − 1)` with q in 0..3, of which the encoder writes 0 to 2. It must not know the other types.

use gguf::Dtype;

use crate::block::Half;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-63: byte 32·h + l holds the values 128·h + 32·k + l in bits 2·k.
    qs: [[u8; 32]; 2],
    /// Bytes 64-65.
    d: Half,
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::TQ2_0;
    const LARGEST: u8 = 1;
    const ALIKE: usize = 32;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        let shift = 2 * (index % 4);
        let mut levels = [0; 32];
        for (level, byte) in levels.iter_mut().zip(self.qs[index / 4]) {
            *level = (byte >> shift & 3) as i8 - 1;
        }
        Group::new([d; 2], levels)
    }
}
