//! Q3_K: 256 values in 16 sub-blocks of 16 as `d·(s − 32)·(q − 4)` with q in 0..7 and s of 6 bits.
//! It must not know the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::kernels::Ladder;

const SCALAR: Ladder = block::scalar::<Block, 256>();

#[cfg(target_arch = "x86_64")]
pub(crate) static LADDER: Ladder = SCALAR.with(Isa::Avx2, avx2::dot).products(avx2::PRODUCTS);
#[cfg(not(target_arch = "x86_64"))]
pub(crate) static LADDER: Ladder = SCALAR;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Bit 4·h + k of byte l is the third bit of value 128·h + 32·k + l.
    hmask: [u8; 32],
    /// Byte 32·h + l holds the low bits of the values 128·h + 32·k + l in bits 2·k.
    qs: [u8; 64],
    /// Scales 0-7 have their low 4 bits in the low nibbles of bytes 0-7, scales 8-15 in the high ones; the high 2
    /// bits of scale i are in bits 2·(i / 4) of byte 8 + i mod 4.
    scales: [u8; 12],
    d: Half,
}

impl Block {
    fn scale(&self, sub: usize) -> f32 {
        f32::from(self.scales()[sub])
    }

    /// All scales, four bytes a step.
    fn scales(&self) -> [i8; 16] {
        let [a, b, high]: [[u8; 4]; 3] = bytemuck::cast(self.scales);
        let [a, b, high] = [a, b, high].map(u32::from_le_bytes);
        let join = |low: u32, high: u32| low & 0x0f0f_0f0f | (high & 0x0303_0303) << 4;
        let words = [
            join(a, high),
            join(b, high >> 2),
            join(a >> 4, high >> 4),
            join(b >> 4, high >> 6),
        ];
        let bytes: [u8; 16] = bytemuck::cast(words.map(u32::to_le_bytes));
        bytes.map(|scale| scale as i8 - 32)
    }
}

impl block::Block<256> for Block {
    const DTYPE: Dtype = Dtype::Q3_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.get();
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * self.scale(sub);
            // Sub-block 8·h + 2·k + e: half h, bit pair k, even or odd half of the 32 bytes.
            let (half, pair, odd) = (sub / 8, sub / 2 % 4, sub % 2);
            let low = &self.qs[32 * half + 16 * odd..][..16];
            let high = &self.hmask[16 * odd..][..16];
            for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                let q = low >> (2 * pair) & 3 | (high >> (4 * half + pair) & 1) << 2;
                *out = scale * f32::from(q as i8 - 4);
            }
        }
    }
}
