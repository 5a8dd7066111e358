//! BF16: the upper 16 bits of an IEEE single, little-endian; encoding rounds to nearest even. It must not know
//! the other types.

#[cfg(target_arch = "x86_64")]
mod avx2;

use gguf::Dtype;

use crate::block::dot_plain;
use crate::cpu::Isa;
use crate::kernels::{Kernels, Ladder};

const SCALAR: Ladder = Ladder::new(Kernels {
    dtype: Dtype::BF16,
    isa: Isa::Scalar,
    dequantize,
    dot,
    int8: None,
})
.encoded_by(quantize);

#[cfg(target_arch = "x86_64")]
pub(crate) static LADDER: Ladder = SCALAR.with(Isa::Avx2, avx2::dot);
#[cfg(not(target_arch = "x86_64"))]
pub(crate) static LADDER: Ladder = SCALAR;

const BYTES: usize = Dtype::BF16.block_bytes();

fn decode(bytes: [u8; BYTES]) -> f32 {
    half::bf16::from_le_bytes(bytes).to_f32()
}

fn dequantize(row: &[u8], out: &mut [f32]) {
    for (bytes, out) in row.as_chunks().0.iter().zip(out) {
        *out = decode(*bytes);
    }
}

fn dot(row: &[u8], x: &[f32]) -> f32 {
    dot_plain(BYTES, dequantize, row, x)
}

fn quantize(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| half::bf16::from_f32(*value).to_le_bytes())
        .collect()
}
