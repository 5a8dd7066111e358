//! IQ6_K: 256 values in 16 sub-blocks of 16 as `d·s·(level(q) + m)` with q in 0..63, m of 0 or 1 and s of 8 bits, signed.
//! It must not know the other types.
//!
//! The level is a cubic in q. ik_llama.cpp evaluates it in f32 where its compiler fuses multiplications with additions,
//! so the last bit of a value depends on how it was built; these are the values of a build for a CPU with FMA.

#[cfg(target_arch = "x86_64")]
mod avx2;

use std::sync::LazyLock;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::kernels::Ladder;

const SCALAR: Ladder = block::scalar::<Block, 256>();

#[cfg(target_arch = "x86_64")]
pub(crate) static LADDER: Ladder = SCALAR.with(Isa::Avx2, avx2::dot);
#[cfg(not(target_arch = "x86_64"))]
pub(crate) static LADDER: Ladder = SCALAR;

/// Coefficients of the cubic, highest power first (iqk_quantize.cpp).
const CUBIC: [f32; 4] = [0.001_197_2, -0.112_18, 6.256_8, -127.0];

static LEVELS: LazyLock<[f32; 64]> = LazyLock::new(|| {
    let mut levels = [0.0; 64];
    for (q, level) in levels.iter_mut().enumerate() {
        let [first, rest @ ..] = CUBIC;
        *level = rest
            .iter()
            .fold(first, |sum, next| sum.mul_add(q as f32, *next));
    }
    levels
});

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bytes 0-1.
    d: Half,
    /// Bytes 2-3, little-endian: bit i is m of sub-block i.
    extra: [u8; 2],
    /// Bytes 4-19.
    scales: [i8; 16],
    /// Bytes 20-147: byte 32·k + l holds the low 4 bits of the values 64·k + l (low nibble) and 64·k + 32 + l (high).
    qs: [[u8; 32]; 4],
    /// Bytes 148-211: byte 32·h + l holds the high 2 bits of the values 128·h + 32·k + l in bits 2·k.
    qh: [[u8; 32]; 2],
}

impl Block {
    /// q of the values 32·group to 32·group + 31.
    #[inline(always)]
    fn qs(&self, group: usize) -> [u8; 32] {
        let low = self.qs[group / 2].map(|byte| byte >> (4 * (group % 2)) & 15);
        let high = self.qh[group / 4].map(|byte| (byte >> (2 * (group % 4)) & 3) << 4);
        crate::levels::or(low, high)
    }

    /// m of a sub-block.
    #[inline(always)]
    fn shift(&self, sub: usize) -> f32 {
        f32::from(u16::from_le_bytes(self.extra) >> sub & 1)
    }
}

impl block::Block<256> for Block {
    const DTYPE: Dtype = Dtype::IQ6_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.get();
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (i, (out, q)) in out.iter_mut().zip(self.qs(group)).enumerate() {
                let sub = 2 * group + i / 16;
                let level = LEVELS[usize::from(q)] + self.shift(sub);
                *out = d * f32::from(self.scales[sub]) * level;
            }
        }
    }
}
