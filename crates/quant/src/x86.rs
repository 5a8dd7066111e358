//! What the x86 kernels share: loads from arrays and sums across lanes. It must not know block layouts.
//!
//! Every function takes arrays, so no kernel does pointer arithmetic; the only unsafe code of a kernel is the call into
//! its instruction set, which [`crate::kernels_on`] guards.

pub(crate) mod avx2 {
    //! 256-bit helpers.

    use std::arch::x86_64::*;

    /// Eight floats.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn floats(x: &[f32; 8]) -> __m256 {
        // SAFETY: the array has the 32 bytes read; the load needs no alignment.
        unsafe { _mm256_loadu_ps(x.as_ptr()) }
    }

    /// 16 bytes.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn bytes16(bytes: &[u8; 16]) -> __m128i {
        // SAFETY: the array has the 16 bytes read; the load needs no alignment.
        unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
    }

    /// 32 bytes.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn bytes32(bytes: &[u8; 32]) -> __m256i {
        // SAFETY: the array has the 32 bytes read; the load needs no alignment.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// The sum of all lanes.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn sum(v: __m256) -> f32 {
        let halves = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
        _mm_cvtss_f32(_mm_add_ss(pairs, _mm_movehdup_ps(pairs)))
    }

    /// 32 signed bytes as four vectors of floats, in order.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn widen(q: __m256i) -> [__m256; 4] {
        let [a, b] = [_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q)];
        [a, _mm_srli_si128::<8>(a), b, _mm_srli_si128::<8>(b)]
            .map(|eight| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight)))
    }
}
