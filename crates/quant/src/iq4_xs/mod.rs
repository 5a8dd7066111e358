//! IQ4_XS: 256 values in 8 sub-blocks of 32 as `d·(s − 32)·level[q]` with s of 6 bits.
//! It must not know the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::kernels::Ladder;
use crate::{codebook, nibbles};

const SCALAR: Ladder = block::scalar::<Block, 256>();

#[cfg(target_arch = "x86_64")]
pub(crate) static LADDER: Ladder = SCALAR.with(Isa::Avx2, avx2::dot).products(avx2::PRODUCTS);
#[cfg(not(target_arch = "x86_64"))]
pub(crate) static LADDER: Ladder = SCALAR;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    d: Half,
    /// High 2 bits of scale s in bits 2·s of this little-endian u16.
    scales_h: [u8; 2],
    /// Low 4 bits of the scales, two per byte.
    scales_l: [u8; 4],
    /// 16 bytes per sub-block, nibbles as in Q4_0.
    qs: [[u8; 16]; 8],
}

impl Block {
    fn scale(&self, sub: usize) -> i8 {
        let low = self.scales_l[sub / 2] >> (4 * (sub % 2)) & 15;
        let high = (u16::from_le_bytes(self.scales_h) >> (2 * sub) & 3) as u8;
        (low | high << 4) as i8 - 32
    }
}

impl block::Block<256> for Block {
    const DTYPE: Dtype = Dtype::IQ4_XS;

    fn decode(&self, out: &mut [f32; 256]) {
        let d = self.d.get();
        for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let scale = d * f32::from(self.scale(sub));
            for (out, q) in out.iter_mut().zip(nibbles::unpack(&self.qs[sub])) {
                *out = scale * f32::from(codebook::IQ4_NL[usize::from(q)]);
            }
        }
    }
}
