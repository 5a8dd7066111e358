//! The loops with AVX2: vectors of eight, two rows or sixteen columns with four queries. It must not be called without AVX2
//! and FMA.

use std::arch::x86_64::*;

use super::vectors::loops;
use super::{RowKernels, exp};
use crate::x86::avx2 as x86;

pub(super) const KERNELS: RowKernels = RowKernels {
    dots,
    add_weighted,
    exps,
    swiglu,
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

/// Only [`super::row_kernels_on`] hands this out, after checking the CPU.
fn exps(x: &mut [f32], top: f32) -> f32 {
    // SAFETY: row_kernels_on has found the instructions available.
    unsafe { exps_avx2(x, top) }
}

/// Only [`super::row_kernels_on`] hands this out, after checking the CPU.
fn swiglu(gate: &mut [f32], up: &[f32]) {
    // SAFETY: row_kernels_on has found the instructions available.
    unsafe { swiglu_avx2(gate, up) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn exps_avx2(x: &mut [f32], top: f32) -> f32 {
    exp::exps(x, top)
}

#[target_feature(enable = "avx2,fma,f16c")]
fn swiglu_avx2(gate: &mut [f32], up: &[f32]) {
    exp::swiglu(gate, up);
}

loops!(
    "avx2,fma,f16c", x86, __m256, lanes: 8, rows: 2, vectors: 2,
    _mm256_setzero_ps, _mm256_set1_ps, _mm256_fmadd_ps
);
