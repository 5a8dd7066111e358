//! Q2_K: 256 values in 16 sub-blocks of 16 as `d·s·q − dmin·m` with q in 0..3 and s, m of 4 bits.
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
    /// Scale in the low nibble, minimum in the high one, per sub-block.
    scales: [u8; 16],
    /// Byte 32·h + l holds the values 128·h + 32·k + l in bits 2·k.
    qs: [u8; 64],
    d: Half,
    dmin: Half,
}

impl block::Block<256> for Block {
    const DTYPE: Dtype = Dtype::Q2_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        for (sub, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(self.scales[sub] & 15);
            let minimum = dmin * f32::from(self.scales[sub] >> 4);
            // Sub-block 8·h + 2·k + e: half h, bit pair k, even or odd half of the 32 bytes.
            let (half, pair, odd) = (sub / 8, sub / 2 % 4, sub % 2);
            let bytes = &self.qs[32 * half + 16 * odd..][..16];
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = scale * f32::from(byte >> (2 * pair) & 3) - minimum;
            }
        }
    }
}
