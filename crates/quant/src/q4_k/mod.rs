//! Q4_K: 256 values in 8 sub-blocks of 32 as `d·s·q − dmin·m` with q in 0..15 and s, m of 6 bits.
//! It must not know the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::k_scales;
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
    d: Half,
    dmin: Half,
    /// See [`k_scales::unpack`].
    scales: [u8; 12],
    /// Byte 32·g + l holds the value 64·g + l below and the value 64·g + 32 + l above.
    qs: [u8; 128],
}

impl block::Block<256> for Block {
    const DTYPE: Dtype = Dtype::Q4_K;

    fn decode(&self, out: &mut [f32; 256]) {
        let (d, dmin) = (self.d.get(), self.dmin.get());
        let scales = k_scales::unpack(&self.scales);
        for (sub, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let scale = d * f32::from(scales[sub].0);
            let minimum = dmin * f32::from(scales[sub].1);
            let bytes = &self.qs[32 * (sub / 2)..][..32];
            for (out, byte) in out.iter_mut().zip(bytes) {
                *out = scale * f32::from(byte >> (4 * (sub % 2)) & 15) - minimum;
            }
        }
    }
}
