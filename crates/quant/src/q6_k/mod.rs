//! Q6_K: 256 values in 16 sub-blocks of 16 as `d·s·(q − 32)` with q in 0..63 and s of 8 bits, signed.
//! It must not know the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::kernels::Ladder;

const SCALAR: Ladder = block::scalar::<Block, 256>();

#[cfg(target_arch = "x86_64")]
pub(crate) static LADDER: Ladder = SCALAR
    .with(Isa::Avx2, avx2::dot)
    .with(Isa::Avx512, avx512::dot)
    .products(avx2::PRODUCTS);
#[cfg(not(target_arch = "x86_64"))]
pub(crate) static LADDER: Ladder = SCALAR;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    /// Byte 64·h + l (l < 64) holds the low 4 bits of the values 128·h + l (low nibble) and 128·h + 64 + l (high).
    ql: [u8; 128],
    /// Byte 32·h + l holds the high 2 bits of the values 128·h + 32·k + l in bits 2·k.
    qh: [u8; 64],
    scales: [i8; 16],
    d: Half,
}

impl block::Block<256> for Block {
    const DTYPE: Dtype = Dtype::Q6_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.get();
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(self.scales[sub]);
            // Sub-block 8·h + 2·k + e: half h, quarter k of it, even or odd half of that quarter.
            let (half, quarter, odd) = (sub / 8, sub / 2 % 4, sub % 2);
            let low = &self.ql[64 * half + 32 * (quarter % 2) + 16 * odd..][..16];
            let high = &self.qh[32 * half + 16 * odd..][..16];
            for (out, (low, high)) in out.iter_mut().zip(low.iter().zip(high)) {
                let q = low >> (4 * (quarter / 2)) & 15 | (high >> (2 * quarter) & 3) << 4;
                *out = scale * f32::from(q as i8 - 32);
            }
        }
    }
}
