//! Q6_K dot product with AVX-512. It must not be called without AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::*;

use super::Block;
use crate::block::blocks;
use crate::x86::{avx2, avx512};

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx512(row, x) }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn dot_avx512(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm512_setzero_ps(); 2];
    let xs = x.as_chunks::<16>().0.as_chunks::<2>().0.as_chunks::<8>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let d = avx2::half(block.d);
        let halves = block
            .ql
            .as_chunks::<64>()
            .0
            .iter()
            .zip(block.qh.as_chunks::<32>().0);
        for (half, (ql, qh)) in halves.enumerate() {
            for (quarter, levels) in super::avx2::levels(ql, qh).into_iter().enumerate() {
                let at = 4 * half + quarter;
                let scales = [2 * at, 2 * at + 1].map(|sub| d * f32::from(block.scales[sub]));
                avx512::add_affine_halves(&mut sums, levels, scales, [0.0; 2], &x[at]);
            }
        }
    }
    avx512::sum2(sums)
}
