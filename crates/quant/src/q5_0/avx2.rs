//! Q5_0 dot product with AVX2. It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;

use super::Block;
use crate::block::blocks;
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2(row, x) }
}

/// The 32 values q − 16. They lie in −16..15, so bytes do not overflow.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn levels(block: &Block) -> __m256i {
    let packed = x86::bytes16(&block.qs);
    let nibbles = _mm256_and_si256(
        _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed),
        _mm256_set1_epi8(15),
    );
    // Byte j of the vector gets the byte of qh that holds bit j, then keeps only that bit.
    let spread = _mm256_set_epi64x(
        0x0303_0303_0303_0303,
        0x0202_0202_0202_0202,
        0x0101_0101_0101_0101,
        0,
    );
    let bit = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
    let qh = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(block.qh)), spread);
    let absent = _mm256_cmpeq_epi8(_mm256_and_si256(qh, bit), _mm256_setzero_si256());
    // Nibble + 16·bit − 16 is the nibble where the bit is set, and the nibble with its upper four bits set elsewhere.
    _mm256_or_si256(nibbles, _mm256_and_si256(absent, _mm256_set1_epi8(-16)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2(row: &[u8], x: &[f32]) -> f32 {
    let mut sum = _mm256_setzero_ps();
    let xs = x.as_chunks::<8>().0.as_chunks::<4>().0;
    for (block, x) in blocks::<Block>(row).iter().zip(xs) {
        let q = x86::widen(levels(block));
        let mut of_block = _mm256_mul_ps(q[0], x86::floats(&x[0]));
        for i in 1..4 {
            of_block = _mm256_fmadd_ps(q[i], x86::floats(&x[i]), of_block);
        }
        sum = _mm256_fmadd_ps(_mm256_set1_ps(block.d.get()), of_block, sum);
    }
    x86::sum(sum)
}
