//! Q4_0: 32 values as `d·(q − 8)` with q in 0..15. Byte j holds value j in its low nibble and value j + 16 in its high
//! one. It must not know the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::kernels::Ladder;
use crate::nibbles;

const SCALAR: Ladder = block::scalar::<Block, 32>().encoded_by(quantize);

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
    const DTYPE: Dtype = Dtype::Q4_0;

    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.get();
        for (out, q) in out.iter_mut().zip(nibbles::unpack(&self.qs)) {
            *out = d * f32::from(q as i8 - 8);
        }
    }
}

fn quantize(values: &[f32]) -> Vec<u8> {
    let blocks: Vec<Block> = values.as_chunks().0.iter().map(encode).collect();
    bytemuck::cast_slice(&blocks).to_vec()
}

/// The value of largest magnitude becomes −8, so that one level more than ±7 is used.
fn encode(values: &[f32; 32]) -> Block {
    let d = nibbles::extreme(values) / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    Block {
        d: Half::new(d),
        qs: nibbles::pack(&values.map(|v| ((v * inverse + 8.5) as u8).min(15))),
    }
}
