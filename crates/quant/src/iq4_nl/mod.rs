//! IQ4_NL: 32 values as `d·level[q]`, nibbles as in Q4_0. It must not know the other types.

use gguf::Dtype;

use crate::block::{self, Half};
use crate::kernels::Ladder;
use crate::{codebook, nibbles};

pub(crate) static LADDER: Ladder = block::scalar::<Block, 32>();

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
