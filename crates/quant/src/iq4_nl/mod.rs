//! IQ4_NL: 32 values as `d·level[q]`, nibbles as in Q4_0. It must not know the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::kernels::Ladder;
use crate::{codebook, nibbles};

const SCALAR: Ladder = block::scalar::<Block, 32>();

#[cfg(target_arch = "x86_64")]
pub(crate) static LADDER: Ladder = SCALAR.with(Isa::Avx2, avx2::dot).products(avx2::PRODUCTS);
#[cfg(not(target_arch = "x86_64"))]
pub(crate) static LADDER: Ladder = SCALAR;

#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Block {
    d: Half,
    qs: [u8; 16],
}

impl block::Block<32> for Block {
    const DTYPE: Dtype = Dtype::IQ4_NL;

    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.get();
        for (out, q) in out.iter_mut().zip(nibbles::unpack(&self.qs)) {
            *out = d * f32::from(codebook::IQ4_NL[usize::from(q)]);
        }
    }
}
