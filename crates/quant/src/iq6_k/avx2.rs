//! IQ6_K dot product with AVX2. It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::{Block, CUBIC};
use crate::block::blocks;
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2(row, x) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(row: &[u8], x: &[f32]) -> f32 {
    let cubic = CUBIC.map(|coefficient| _mm256_set1_ps(coefficient));
    let mut sums = [_mm256_setzero_ps(); 2];
    let xs = x.as_chunks::<8>().0.as_chunks::<2>().0.as_chunks::<16>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let d = x86::half(block.d);
        for group in 0..8 {
            let q = x86::widen(x86::bytes32(&block.qs(group)));
            for half in 0..2 {
                let sub = 2 * group + half;
                let shift = _mm256_set1_ps(block.shift(sub));
                let mut of_sub = _mm256_setzero_ps();
                for eight in 0..2 {
                    let q = q[2 * half + eight];
                    let level = _mm256_fmadd_ps(cubic[0], q, cubic[1]);
                    let level = _mm256_fmadd_ps(level, q, cubic[2]);
                    let level = _mm256_add_ps(_mm256_fmadd_ps(level, q, cubic[3]), shift);
                    of_sub = _mm256_fmadd_ps(level, x86::floats(&x[sub][eight]), of_sub);
                }
                let scale = _mm256_set1_ps(d * f32::from(block.scales[sub]));
                sums[half] = _mm256_fmadd_ps(scale, of_sub, sums[half]);
            }
        }
    }
    x86::sum(_mm256_add_ps(sums[0], sums[1]))
}
