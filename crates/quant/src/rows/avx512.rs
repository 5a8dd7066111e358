//! The loops with AVX-512: vectors of sixteen, four rows or 64 columns with four queries; exponentials are those of AVX2. It
//! must not be called without AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::*;

use super::vectors::loops;
use super::{RowKernels, avx2};
use crate::x86::avx512 as x86;

pub(super) const KERNELS: RowKernels = RowKernels {
    dots,
    add_weighted,
    ..avx2::KERNELS
};

/// Only [`super::row_kernels_on`] hands this out, after checking the CPU.
fn dots(queries: &[&[f32]], rows: &[f32], out: &mut [f32]) {
    // SAFETY: row_kernels_on has found the instructions available.
    unsafe { dots_vectors(queries, rows, out) }
}

/// Only [`super::row_kernels_on`] hands this out, after checking the CPU.
fn add_weighted(y: &mut [f32], width: usize, weights: &[f32], rows: &[f32], stride: usize) {
    // SAFETY: row_kernels_on has found the instructions available.
    unsafe { add_weighted_vectors(y, width, weights, rows, stride) }
}

loops!(
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c", x86, __m512, lanes: 16, rows: 4, vectors: 4,
    _mm512_setzero_ps, _mm512_set1_ps, _mm512_fmadd_ps
);
