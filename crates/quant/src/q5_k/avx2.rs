//! Q5_K dot product with AVX2. It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::blocks;
use crate::k_scales;
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2(row, x) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 4];
    let xs = x.as_chunks::<8>().0.as_chunks::<4>().0.as_chunks::<8>().0;
    let nibble = _mm256_set1_epi8(15);
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let (d, dmin) = (x86::half(block.d), x86::half(block.dmin));
        let scales = k_scales::unpack(&block.scales);
        let fifths = x86::bytes32(&block.qh);
        for (group, bytes) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            let bytes = x86::bytes32(bytes);
            let low = _mm256_and_si256(bytes, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            for (sub, nibbles) in [(2 * group, low), (2 * group + 1, high)] {
                let mask = _mm256_set1_epi8((1u8 << sub).cast_signed());
                let present = _mm256_cmpeq_epi8(_mm256_and_si256(fifths, mask), mask);
                let levels =
                    _mm256_or_si256(nibbles, _mm256_and_si256(present, _mm256_set1_epi8(16)));
                let scale = d * f32::from(scales[sub].0);
                let minimum = dmin * f32::from(scales[sub].1);
                x86::add_affine(&mut sums, levels, scale, -minimum, &x[sub]);
            }
        }
    }
    x86::sum4(sums)
}
