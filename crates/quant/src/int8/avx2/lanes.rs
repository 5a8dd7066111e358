//! Moving numbers between eight vectors of eight. It must not know what they are, nor be called without AVX2.

use std::arch::x86_64::*;

use crate::each::each;

/// The eight 32-bit numbers of each row, as the first of all rows, the second of all rows, and so on.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) fn transpose(rows: [__m256i; 8]) -> [__m256i; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    // In each half of a vector: numbers 0 and 1, then 2 and 3, of two rows.
    let (ab0, ab2) = (_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b));
    let (cd0, cd2) = (_mm256_unpacklo_epi32(c, d), _mm256_unpackhi_epi32(c, d));
    let (ef0, ef2) = (_mm256_unpacklo_epi32(e, f), _mm256_unpackhi_epi32(e, f));
    let (gh0, gh2) = (_mm256_unpacklo_epi32(g, h), _mm256_unpackhi_epi32(g, h));
    // One number, of four rows; the upper half of the vector has the number four later.
    let abcd = [
        _mm256_unpacklo_epi64(ab0, cd0),
        _mm256_unpackhi_epi64(ab0, cd0),
        _mm256_unpacklo_epi64(ab2, cd2),
        _mm256_unpackhi_epi64(ab2, cd2),
    ];
    let efgh = [
        _mm256_unpacklo_epi64(ef0, gh0),
        _mm256_unpackhi_epi64(ef0, gh0),
        _mm256_unpacklo_epi64(ef2, gh2),
        _mm256_unpackhi_epi64(ef2, gh2),
    ];
    each!(8, |at| {
        let (first, second) = (abcd[at % 4], efgh[at % 4]);
        if at < 4 {
            _mm256_permute2x128_si256::<0x20>(first, second)
        } else {
            _mm256_permute2x128_si256::<0x31>(first, second)
        }
    })
}

/// The sum of each row's eight 32-bit numbers, in its lane.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn sums([a, b, c, d, e, f, g, h]: [__m256i; 8]) -> __m256i {
    let four = |a, b, c, d| fold64(fold32(a, b), fold32(c, d));
    let (abcd, efgh) = (four(a, b, c, d), four(e, f, g, h));
    _mm256_add_epi32(
        _mm256_permute2x128_si256::<0x20>(abcd, efgh),
        _mm256_permute2x128_si256::<0x31>(abcd, efgh),
    )
}

/// In each half of a vector, two partial sums of each of two rows, the rows taking turns.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fold32(a: __m256i, b: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b))
}

/// In each half of a vector, one partial sum of each of four rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn fold64(ab: __m256i, cd: __m256i) -> __m256i {
    _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd))
}
