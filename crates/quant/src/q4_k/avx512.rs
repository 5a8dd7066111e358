//! Q4_K dot product with AVX-512. It must not be called without AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::*;

use super::Block;
use crate::block::blocks;
use crate::k_scales;
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
    let nibble = _mm256_set1_epi8(15);
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let (d, dmin) = (avx2::half(block.d), avx2::half(block.dmin));
        let scales = k_scales::unpack(&block.scales);
        for (group, bytes) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            let bytes = avx2::bytes32(bytes);
            let low = _mm256_and_si256(bytes, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            for (sub, nibbles) in [(2 * group, low), (2 * group + 1, high)] {
                let scale = d * f32::from(scales[sub].0);
                let minimum = dmin * f32::from(scales[sub].1);
                avx512::add_affine_halves(&mut sums, nibbles, [scale; 2], [-minimum; 2], &x[sub]);
            }
        }
    }
    avx512::sum2(sums)
}
