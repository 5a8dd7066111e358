//! TQ1_0: 256 values as `d·t` with t in −1, 0, 1, five of them in a byte. It must not know the other types.
//!
//! A byte is the fraction b/256 that reads `0.t₀t₁t₂t₃t₄` in base 3 (digits t + 1): multiplying by 3 moves the next
//! digit before the point.

use gguf::Dtype;

use crate::block::Half;
use crate::kernels::Ladder;
use crate::levels::{self, Group, Levels};

pub(crate) static LADDER: Ladder = levels::ladder::<Block, 256>();

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-31: digit n of byte l is value 32·n + l.
    first: [u8; 32],
    /// Bytes 32-47: digit n of byte l is value 160 + 16·n + l.
    second: [u8; 16],
    /// Bytes 48-51, four digits each: digit n of byte l is value 240 + 4·n + l.
    last: [u8; 4],
    /// Bytes 52-53.
    d: Half,
}

/// Digit `place` of a byte, as −1, 0 or 1.
#[inline(always)]
fn trit(byte: u8, place: usize) -> i8 {
    const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
    let rest = byte.wrapping_mul(POWERS[place]);
    ((u16::from(rest) * 3) >> 8) as i8 - 1
}

impl Levels<256> for Block {
    const DTYPE: Dtype = Dtype::TQ1_0;
    const LARGEST: u8 = 1;
    const ALIKE: usize = 32;

    #[inline(always)]
    fn scale(&self, _: f32) -> f32 {
        self.d.get()
    }

    #[inline(always)]
    fn group(&self, d: f32, index: usize) -> Group {
        if index < 5 {
            let mut levels = [0; 32];
            for (level, byte) in levels.iter_mut().zip(self.first) {
                *level = trit(byte, index);
            }
            return Group::new([d; 2], levels);
        }
        let mut levels = [0; 32];
        let (low, high) = levels.split_at_mut(16);
        let place = 2 * (index - 5);
        for (level, byte) in low.iter_mut().zip(self.second) {
            *level = trit(byte, place);
        }
        if place < 4 {
            for (level, byte) in high.iter_mut().zip(self.second) {
                *level = trit(byte, place + 1);
            }
        } else {
            for (at, level) in high.iter_mut().enumerate() {
                *level = trit(self.last[at % 4], at / 4);
            }
        }
        Group::new([d; 2], levels)
    }
}
