//! F16 dot product with AVX2: 32 values per step in four sums, the rest by the scalar reference.
//! It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::BYTES;
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2(row, x) }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weights(bytes: &[u8; 8 * BYTES]) -> __m256 {
    _mm256_cvtph_ps(x86::bytes16(bytes))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let steps = (row.len() / (32 * BYTES)).min(x.len() / 32);
    let (rows, rest_row) = row.split_at(steps * 32 * BYTES);
    let (xs, rest_x) = x.split_at(steps * 32);
    let rows = rows.as_chunks::<{ 8 * BYTES }>().0.as_chunks::<4>().0;
    let xs = xs.as_chunks::<8>().0.as_chunks::<4>().0;
    for (row, x) in rows.iter().zip(xs) {
        for i in 0..4 {
            sums[i] = _mm256_fmadd_ps(weights(&row[i]), x86::floats(&x[i]), sums[i]);
        }
    }
    x86::sum4(sums) + super::dot(rest_row, rest_x)
}
