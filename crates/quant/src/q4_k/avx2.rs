//! Q4_K products with AVX2. They must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::{blocks, plain};
use crate::int8::avx2::{self as int8, Affine, Superblock};
use crate::int8::paths::products;
use crate::int8::{Activations, Rows};
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
        for (group, bytes) in block.qs.as_chunks::<32>().0.iter().enumerate() {
            let bytes = x86::bytes32(bytes);
            let low = _mm256_and_si256(bytes, nibble);
            let high = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
            for (sub, nibbles) in [(2 * group, low), (2 * group + 1, high)] {
                let scale = d * f32::from(scales[sub].0);
                let minimum = dmin * f32::from(scales[sub].1);
                x86::add_affine(&mut sums, nibbles, scale, -minimum, &x[sub]);
            }
        }
    }
    x86::sum4(sums)
}

products!(int8, |rows, x, out| int8::superblocks::<
    Block,
    Affine<15, 32>,
>(rows, x, out, plain, |block, _| open(
    block
)));

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open(block: &Block) -> Superblock {
    let (scales, minimums) = k_scales::unpack_apart(&block.scales);
    let nibble = _mm256_set1_epi8(15);
    let mut levels = [nibble; 8];
    for (bytes, levels) in block
        .qs
        .as_chunks::<32>()
        .0
        .iter()
        .zip(levels.as_chunks_mut::<2>().0)
    {
        let bytes = x86::bytes32(bytes);
        levels[0] = _mm256_and_si256(bytes, nibble);
        levels[1] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), nibble);
    }
    Superblock {
        d: x86::half(block.d),
        scales: int8::per_group(bytemuck::cast(scales)),
        offset: -x86::half(block.dmin),
        offsets: int8::per_group(bytemuck::cast(minimums)),
        levels,
    }
}
