//! Q8_0: 32 values as `d·q` with q in −127..127. It must not know the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;

use gguf::Dtype;

use crate::block::{self, Half};
#[cfg(target_arch = "x86_64")]
use crate::cpu::Isa;
use crate::kernels::Ladder;

const SCALAR: Ladder = block::scalar::<Block, 32>().encoded_by(quantize);

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
    qs: [i8; 32],
}

impl block::Block<32> for Block {
    const DTYPE: Dtype = Dtype::Q8_0;

    fn decode(&self, out: &mut [f32; 32]) {
        let d = self.d.get();
        for (out, q) in out.iter_mut().zip(self.qs) {
            *out = f32::from(q) * d;
        }
    }
}

fn quantize(values: &[f32]) -> Vec<u8> {
    let blocks: Vec<Block> = values.as_chunks().0.iter().map(encode).collect();
    bytemuck::cast_slice(&blocks).to_vec()
}

fn encode(values: &[f32; 32]) -> Block {
    let largest = values.iter().fold(0.0f32, |max, v| max.max(v.abs()));
    let d = largest / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    Block {
        d: Half::new(d),
        // |v·inverse| <= 127 up to rounding, so the cast does not saturate.
        qs: values.map(|v| (v * inverse).round() as i8),
    }
}
