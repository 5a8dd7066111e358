//! The entry points: from a tensor type to its kernels, by exhaustive match.
//! It must not know layouts; each type's folder does.

use gguf::Dtype;

use crate::cpu::Isa;
#[cfg(target_arch = "x86_64")]
use crate::int8::paths::Products;
use crate::int8::{Int8, Multiply};
use crate::{
    bf16, f16, f32, iq1_kt, iq1_m, iq1_s, iq2_k, iq2_kl, iq2_ks, iq2_kt, iq2_s, iq2_xs, iq2_xxs,
    iq3_k, iq3_ks, iq3_kt, iq3_s, iq3_xxs, iq4_k, iq4_ks, iq4_kss, iq4_kt, iq4_nl, iq4_xs, iq5_k,
    iq5_ks, iq6_k, mxfp4, nvfp4, q2_k, q3_k, q4_0, q4_1, q4_k, q5_0, q5_1, q5_k, q6_0, q6_k, q8_0,
    tq1_0, tq2_0,
};

/// The functions that read one row of a type.
///
/// The row must hold as many values as the floats: `row.len() == dtype.row_bytes(x.len())`. Whatever is beyond the
/// shorter of the two is ignored; no length is undefined behaviour.
#[derive(Clone, Copy, Debug)]
pub struct Kernels {
    pub dtype: Dtype,
    /// The instruction set of `dot`. Dequantization is always the scalar reference.
    pub isa: Isa,
    /// Decodes a row into floats, bit for bit as the reference implementation.
    pub dequantize: fn(row: &[u8], out: &mut [f32]),
    /// Σ row\[i\]·x\[i\] with the activations kept in f32: nothing but the weights is ever rounded to fewer bits.
    ///
    /// For `n` values a result is within `(n/8 + 8)·ε·Σ|row\[i\]·x\[i\]|` of the exact one, with ε = 2⁻²³.
    pub dot: fn(row: &[u8], x: &[f32]) -> f32,
    /// The product with activations of eight bits, where the type has blocks and a path that is faster than `dot`.
    pub int8: Option<Int8>,
}

/// Encodes whole blocks.
pub(crate) type Encoder = fn(&[f32]) -> Vec<u8>;

/// A type's kernels, one per instruction set that has its own, in the order of [`Isa::ALL`].
#[derive(Debug)]
pub(crate) struct Ladder {
    paths: [Option<Kernels>; Isa::ALL.len()],
    encode: Option<Encoder>,
}

impl Ladder {
    pub(crate) const fn new(scalar: Kernels) -> Ladder {
        let mut paths = [None; Isa::ALL.len()];
        paths[Isa::Scalar as usize] = Some(scalar);
        Ladder {
            paths,
            encode: None,
        }
    }

    /// Adds an encoder of whole blocks.
    pub(crate) const fn encoded_by(mut self, encode: Encoder) -> Ladder {
        self.encode = Some(encode);
        self
    }

    /// Adds a dot product that runs only where `isa` is available.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn with(mut self, isa: Isa, dot: fn(&[u8], &[f32]) -> f32) -> Ladder {
        if let Some(scalar) = self.paths[Isa::Scalar as usize] {
            self.paths[isa as usize] = Some(Kernels {
                isa,
                dot,
                int8: None,
                ..scalar
            });
        }
        self
    }

    /// Adds the int8 products of every instruction set that has loops.
    #[cfg(target_arch = "x86_64")]
    pub(crate) const fn products(self, products: Products) -> Ladder {
        self.int8(Isa::Avx2, products.avx2)
            .int8(Isa::Vnni, products.vnni)
            .int8(Isa::Amx, products.amx)
    }

    /// Adds an int8 product that runs where `isa` is available: on its path and on those above it. Where `isa` has no dot
    /// product of its own, the fastest one so far stands beside it.
    #[cfg(target_arch = "x86_64")]
    const fn int8(mut self, isa: Isa, multiply: Multiply) -> Ladder {
        let mut path = isa as usize;
        let mut below = path;
        while self.paths[below].is_none() {
            below -= 1;
        }
        self.paths[path] = self.paths[below];
        while path < self.paths.len() {
            if let Some(kernels) = &mut self.paths[path] {
                kernels.int8 = Int8::of(kernels.dtype.block_values(), multiply);
            }
            path += 1;
        }
        self
    }

    fn on(&self, isa: Isa) -> Option<&Kernels> {
        self.paths[isa as usize].as_ref()
    }
}

/// The fastest kernels this CPU can run for a type; `None` when the type cannot be read yet.
pub fn kernels(dtype: Dtype) -> Option<&'static Kernels> {
    Isa::ALL
        .into_iter()
        .rev()
        .find_map(|isa| kernels_on(dtype, isa))
}

/// A type's kernels on one instruction set; `None` when the type has none there or the CPU cannot run it.
pub fn kernels_on(dtype: Dtype, isa: Isa) -> Option<&'static Kernels> {
    // This check makes the kernels sound: a path is handed out only where its instructions exist.
    if !isa.available() {
        return None;
    }
    ladder(dtype)?.on(isa)
}

fn ladder(dtype: Dtype) -> Option<&'static Ladder> {
    Some(match dtype {
        Dtype::F32 => &f32::LADDER,
        Dtype::F16 => &f16::LADDER,
        Dtype::BF16 => &bf16::LADDER,
        Dtype::Q4_0 => &q4_0::LADDER,
        Dtype::Q4_1 => &q4_1::LADDER,
        Dtype::Q5_0 => &q5_0::LADDER,
        Dtype::Q5_1 => &q5_1::LADDER,
        Dtype::Q8_0 => &q8_0::LADDER,
        Dtype::Q2_K => &q2_k::LADDER,
        Dtype::Q3_K => &q3_k::LADDER,
        Dtype::Q4_K => &q4_k::LADDER,
        Dtype::Q5_K => &q5_k::LADDER,
        Dtype::Q6_K => &q6_k::LADDER,
        Dtype::IQ4_NL => &iq4_nl::LADDER,
        Dtype::IQ4_XS => &iq4_xs::LADDER,
        Dtype::IQ1_S => &iq1_s::LADDER,
        Dtype::IQ1_M => &iq1_m::LADDER,
        Dtype::IQ2_XXS => &iq2_xxs::LADDER,
        Dtype::IQ2_XS => &iq2_xs::LADDER,
        Dtype::IQ2_S => &iq2_s::LADDER,
        Dtype::IQ3_XXS => &iq3_xxs::LADDER,
        Dtype::IQ3_S => &iq3_s::LADDER,
        Dtype::TQ1_0 => &tq1_0::LADDER,
        Dtype::TQ2_0 => &tq2_0::LADDER,
        Dtype::MXFP4 => &mxfp4::LADDER,
        Dtype::NVFP4 => &nvfp4::LADDER,
        // No published Kimi has them.
        Dtype::Q1_0 | Dtype::Q2_0 => return None,
        Dtype::Q6_0 => &q6_0::LADDER,
        Dtype::IQ2_K => &iq2_k::LADDER,
        Dtype::IQ3_K => &iq3_k::LADDER,
        Dtype::IQ4_K => &iq4_k::LADDER,
        Dtype::IQ5_K => &iq5_k::LADDER,
        Dtype::IQ6_K => &iq6_k::LADDER,
        Dtype::IQ4_KS => &iq4_ks::LADDER,
        Dtype::IQ2_KS => &iq2_ks::LADDER,
        Dtype::IQ4_KSS => &iq4_kss::LADDER,
        Dtype::IQ5_KS => &iq5_ks::LADDER,
        Dtype::IQ2_KT => &iq2_kt::LADDER,
        Dtype::IQ3_KT => &iq3_kt::LADDER,
        Dtype::IQ4_KT => &iq4_kt::LADDER,
        Dtype::IQ3_KS => &iq3_ks::LADDER,
        Dtype::IQ2_KL => &iq2_kl::LADDER,
        Dtype::IQ1_KT => &iq1_kt::LADDER,
        // Activations and plain numbers: never weights.
        Dtype::Q8_1
        | Dtype::Q8_K
        | Dtype::I8
        | Dtype::I16
        | Dtype::I32
        | Dtype::I64
        | Dtype::F64 => return None,
    })
}

/// Encodes whole rows of a type, or `None` when the type has no encoder or `values` is not whole blocks.
///
/// Encoders minimise nothing: they are the plain round-to-nearest ones of ggml. Values must be finite.
pub fn quantize(dtype: Dtype, values: &[f32]) -> Option<Vec<u8>> {
    if !values.len().is_multiple_of(dtype.block_values()) {
        return None;
    }
    let encode = ladder(dtype)?.encode?;
    Some(encode(values))
}
