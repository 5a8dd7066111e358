//! Q6_0: 32 values as `d·(q − 32)` with q in 0..63: low 4 bits as nibbles like Q4_0, high 2 bits apart. It must not know
//! the other types.

use gguf::Dtype;

use crate::block::Half;
use crate::each::each;
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
        let qh = u64::from_le_bytes(self.qh);
        // Eight values have their bits at the same place of all bytes.
        let places = [0, 4, 2, 6];
        let high = each!(4, |i| (qh >> places[i] & 0x0303_0303_0303_0303) << 4);
        let mut levels = [0; 32];
        let values = levels::or(
            nibbles::unpack(&self.qs),
            bytemuck::cast(each!(4, |i| high[i].to_le_bytes())),
        );
        for (level, value) in levels.iter_mut().zip(values) {
            *level = value as i8 - 32;
        }
        Group::new([d; 2], levels)
    }
}
