//! Q6_0: 32 values as `d·(q − 32)` with q in 0..63: low 4 bits as nibbles like Q4_0, high 2 bits apart. It must not know
//! the other types.

use gguf::Dtype;

use crate::block::Half;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};
use crate::nibbles;

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 32>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1.
    d: Half,
    /// Bytes 2-9: byte l holds the high 2 bits of the values l, l + 16, l + 8 and l + 24, lowest first.
    qh: [u8; 8],
    /// Bytes 10-25, nibbles as in Q4_0.
    qs: [u8; 16],
}

impl Levels<32> for Block {
    const DTYPE: Dtype = Dtype::Q6_0;
    const LARGEST: u8 = 32;
    const ALIKE: usize = 32;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, _: usize) -> Group {
        let mut levels = [0; 32];
        let low = nibbles::unpack(&self.qs);
        for (j, level) in levels.iter_mut().enumerate() {
            let shift = 4 * (j % 16 / 8) + 2 * (j / 16);
            let high = self.qh[j % 8] >> shift & 3;
            *level = (low[j] | high << 4) as i8 - 32;
        }
        Group::new([d; 2], levels)
    }
}
