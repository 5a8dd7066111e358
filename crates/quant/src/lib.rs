//! Quantized tensor types: block layouts and the CPU kernels that read and write them, one folder per type.
//! It must not know tensors, models or threads: a kernel sees one row of bytes and one row of floats.
//!
//! Each folder holds a type's block layout with a size assertion, the scalar reference that decodes it, its encoder
//! where there is one, and one file per instruction set that has a faster dot product. Types whose values are a scale
//! times a level of 8 bits describe only their layout; [`levels`] makes the kernels of all of them. [`kernels`] picks the best path
//! the running CPU has; [`kernels_on`] reaches each path by name, so that every one is tested against the reference.
//!
//! Formulae: `d` is an IEEE half unless a type says otherwise; a block of type `T` decodes as its module's first lines
//! say. They are the formats of ggml-common.h of llama.cpp and ik_llama.cpp. Dequantization is bit for bit that of the
//! `gguf` Python package for the former, of the library's own code for the latter.

mod block;
mod codebook;
mod cpu;
mod each;
mod int8;
mod k_scales;
mod kernels;
mod levels;
mod nibbles;
mod signs;
mod trellis;
#[cfg(target_arch = "x86_64")]
mod x86;

mod bf16;
mod f16;
mod f32;
mod iq1_kt;
mod iq1_m;
mod iq1_s;
mod iq2_k;
mod iq2_kl;
mod iq2_ks;
mod iq2_kt;
mod iq2_s;
mod iq2_xs;
mod iq2_xxs;
mod iq3_k;
mod iq3_ks;
mod iq3_kt;
mod iq3_s;
mod iq3_xxs;
mod iq4_k;
mod iq4_ks;
mod iq4_kss;
mod iq4_kt;
mod iq4_nl;
mod iq4_xs;
mod iq5_k;
mod iq5_ks;
mod iq6_k;
mod mxfp4;
mod nvfp4;
mod q2_k;
mod q3_k;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_0;
mod q6_k;
mod q8_0;
mod rows;
mod tq1_0;
mod tq2_0;

pub use cpu::Isa;
pub use int8::{Activations, Grain, Int8, Rows};
pub use kernels::{Kernels, kernels, kernels_on, quantize};
pub use rows::{RowKernels, row_kernels, row_kernels_on};
