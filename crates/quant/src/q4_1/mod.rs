//! Q4_1: 32 values as `d·q + m` with q in 0..15, nibbles as in Q4_0. It must not know the other types.

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
    m: Half,
    qs: [u8; 16],
}

impl block::Block<32> for Block {
    const DTYPE: Dtype = Dtype::Q4_1;

    fn decode(&self, out: &mut [f32; 32]) {
        let (d, m) = (self.d.get(), self.m.get());
        for (out, q) in out.iter_mut().zip(nibbles::unpack(&self.qs)) {
            *out = d * f32::from(q) + m;
        }
    }
}

fn quantize(values: &[f32]) -> Vec<u8> {
    let blocks: Vec<Block> = values.as_chunks().0.iter().map(encode).collect();
    bytemuck::cast_slice(&blocks).to_vec()
}

fn encode(values: &[f32; 32]) -> Block {
    let (min, max) = nibbles::range(values);
    let d = (max - min) / 15.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    Block {
        d: Half::new(d),
        m: Half::new(min),
        qs: nibbles::pack(&values.map(|v| (((v - min) * inverse + 0.5) as u8).min(15))),
    }
}
