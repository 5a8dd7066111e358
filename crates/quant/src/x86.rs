//! What the x86 kernels share: loads from arrays and sums across lanes. It must not know block layouts.
//!
//! Every function takes arrays, so no kernel does pointer arithmetic; the only unsafe code of a kernel is the call into
//! its instruction set, which [`crate::kernels_on`] guards.

pub(crate) mod avx2 {
    //! 256-bit helpers.

    use std::arch::x86_64::*;

    use crate::block::Half;
    use crate::each::each;
    use crate::int8::strip::Behind;

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

    /// The 32 bytes of a vector.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn to_bytes(v: __m256i) -> [u8; 32] {
        let mut bytes = [0; 32];
        // SAFETY: the array has the 32 bytes written; the store needs no alignment.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) };
        bytes
    }

    /// 16 numbers of 16 bits.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn words(words: &[i16; 16]) -> __m256i {
        bytes32(bytemuck::cast_ref(words))
    }

    /// Eight floats that were computed one by one: put together in registers, where a load would wait for the stores.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn gather([a, b, c, d, e, f, g, h]: [f32; 8]) -> __m256 {
        _mm256_setr_ps(a, b, c, d, e, f, g, h)
    }

    /// Has the second cache fetch the next step of what lies behind a strip.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn prefetch_step(behind: &mut Behind) {
        let (start, bytes) = behind.step();
        for line in (0..bytes).step_by(64) {
            _mm_prefetch::<_MM_HINT_T1>(start.wrapping_add(line).cast());
        }
    }

    /// The eight floats of a vector.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn array(v: __m256) -> [f32; 8] {
        let mut array = [0.0; 8];
        // SAFETY: the array has the 32 bytes written; the store needs no alignment.
        unsafe { _mm256_storeu_ps(array.as_mut_ptr(), v) };
        array
    }

    /// A block's scale. Inline, unlike [`Half::get`]: a call per block would spill every running sum.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn half(half: Half) -> f32 {
        _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half.bits().into())))
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
        let eights = [a, _mm_srli_si128::<8>(a), b, _mm_srli_si128::<8>(b)];
        each!(4, |at| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eights[at])))
    }

    /// The 32 nibbles of 16 bytes as the 32-value types order them: low ones first, then high ones.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn nibbles(qs: &[u8; 16]) -> __m256i {
        let packed = bytes16(qs);
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }

    /// Byte j is 0xff where bit j of the little-endian `bits` is set, else 0.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn spread_bits(bits: [u8; 4]) -> __m256i {
        // Byte j of the vector gets the byte that holds bit j, then keeps only that bit.
        let holder = _mm256_set_epi64x(
            0x0303_0303_0303_0303,
            0x0202_0202_0202_0202,
            0x0101_0101_0101_0101,
            0,
        );
        let bit = _mm256_set1_epi64x(i64::from_le_bytes([1, 2, 4, 8, 16, 32, 64, 128]));
        let bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(i32::from_le_bytes(bits)), holder);
        _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit)
    }

    /// Σ q·x of 32 levels (signed bytes), in eight partial sums.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn levels_dot(q: __m256i, x: &[[f32; 8]; 4]) -> __m256 {
        let q = widen(q);
        let first = _mm256_mul_ps(q[0], floats(&x[0]));
        (1..4).fold(first, |sum, i| _mm256_fmadd_ps(q[i], floats(&x[i]), sum))
    }

    /// Adds (scale·q + offset)·x of 32 levels to four running sums. The weight is formed first, as the reference
    /// does: adding offset·Σx to scale·Σq·x instead would cancel more.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn add_affine(
        sums: &mut [__m256; 4],
        q: __m256i,
        scale: f32,
        offset: f32,
        x: &[[f32; 8]; 4],
    ) {
        let (scale, offset) = (_mm256_set1_ps(scale), _mm256_set1_ps(offset));
        for (i, q) in widen(q).into_iter().enumerate() {
            let weights = _mm256_fmadd_ps(scale, q, offset);
            sums[i] = _mm256_fmadd_ps(weights, floats(&x[i]), sums[i]);
        }
    }

    /// As [`add_affine`] where the two halves of the 32 levels have scales and offsets of their own.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn add_affine_halves(
        sums: &mut [__m256; 4],
        q: __m256i,
        scales: [f32; 2],
        offsets: [f32; 2],
        x: &[[f32; 8]; 4],
    ) {
        for (i, q) in widen(q).into_iter().enumerate() {
            let (scale, offset) = (
                _mm256_set1_ps(scales[i / 2]),
                _mm256_set1_ps(offsets[i / 2]),
            );
            let weights = _mm256_fmadd_ps(scale, q, offset);
            sums[i] = _mm256_fmadd_ps(weights, floats(&x[i]), sums[i]);
        }
    }

    /// The value in a table of 16 signed bytes for each of 32 nibbles.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn look_up(table: &[i8; 16], nibbles: __m256i) -> __m256i {
        let table = _mm256_broadcastsi128_si256(bytes16(bytemuck::cast_ref(table)));
        _mm256_shuffle_epi8(table, nibbles)
    }

    /// Every byte shifted right by `bits` and cut to its lowest two bits.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn bit_pairs(bytes: __m256i, bits: usize) -> __m256i {
        // A 16-bit shift moves bits between bytes; the mask drops them.
        let shifted = _mm256_srl_epi16(bytes, _mm_cvtsi64_si128(bits as i64));
        _mm256_and_si256(shifted, _mm256_set1_epi8(3))
    }

    /// The sum of all lanes of four vectors.
    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    pub(crate) fn sum4(v: [__m256; 4]) -> f32 {
        sum(_mm256_add_ps(
            _mm256_add_ps(v[0], v[1]),
            _mm256_add_ps(v[2], v[3]),
        ))
    }
}

pub(crate) mod avx512 {
    //! 512-bit helpers, half as many steps of twice the width.

    use std::arch::x86_64::*;

    use crate::each::each;

    /// Sixteen floats.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn floats(x: &[f32; 16]) -> __m512 {
        // SAFETY: the array has the 64 bytes read; the load needs no alignment.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }

    /// The sixteen floats of a vector.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn array(v: __m512) -> [f32; 16] {
        let mut array = [0.0; 16];
        // SAFETY: the array has the 64 bytes written; the store needs no alignment.
        unsafe { _mm512_storeu_ps(array.as_mut_ptr(), v) };
        array
    }

    /// Sixteen numbers.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn numbers(x: &[i32; 16]) -> __m512i {
        // SAFETY: the array has the 64 bytes read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(x.as_ptr().cast()) }
    }

    /// 64 bytes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn bytes64(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: the array has the 64 bytes read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    /// The 64 bytes of a vector.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn to_bytes(v: __m512i) -> [u8; 64] {
        let mut bytes = [0; 64];
        // SAFETY: the array has the 64 bytes written; the store needs no alignment.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), v) };
        bytes
    }

    /// The sixteen 32-bit numbers of each row, as the first of all rows, the second of all rows, and so on.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn transpose(rows: [__m512i; 16]) -> [__m512i; 16] {
        // In each quarter of a vector: two numbers of two rows, then one of four rows.
        let twos = each!(16, |at| {
            let (a, b) = (rows[at / 2 * 2], rows[at / 2 * 2 + 1]);
            if at.is_multiple_of(2) {
                _mm512_unpacklo_epi32(a, b)
            } else {
                _mm512_unpackhi_epi32(a, b)
            }
        });
        let fours = each!(16, |at| {
            let first = at / 4 * 4 + at % 4 / 2;
            let (a, b) = (twos[first], twos[first + 2]);
            if at.is_multiple_of(2) {
                _mm512_unpacklo_epi64(a, b)
            } else {
                _mm512_unpackhi_epi64(a, b)
            }
        });
        // Quarters of eight rows, then of all: the even ones of two vectors, or the odd ones.
        let eights = each!(16, |at| {
            let first = at / 8 * 8 + at % 4;
            let (a, b) = (fours[first], fours[first + 4]);
            if at % 8 < 4 {
                _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b)
            } else {
                _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)
            }
        });
        each!(16, |at| {
            let (a, b) = (eights[at % 8], eights[at % 8 + 8]);
            if at < 8 {
                _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b)
            } else {
                _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b)
            }
        })
    }

    /// The sum of all lanes.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn sum(v: __m512) -> f32 {
        _mm512_reduce_add_ps(v)
    }

    /// Two vectors as one.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn halves(halves: &[__m256i; 2]) -> __m512i {
        // SAFETY: the array has the 64 bytes read; the load needs no alignment.
        unsafe { _mm512_loadu_si512(halves.as_ptr().cast()) }
    }

    /// 32 signed bytes as two vectors of floats, in order.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn widen(q: __m256i) -> [__m512; 2] {
        let halves = [_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q)];
        each!(2, |at| _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(halves[at])))
    }

    /// As the 256-bit helper of this name; `sums` are two.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn add_affine_halves(
        sums: &mut [__m512; 2],
        q: __m256i,
        scales: [f32; 2],
        offsets: [f32; 2],
        x: &[[f32; 16]; 2],
    ) {
        for (i, q) in widen(q).into_iter().enumerate() {
            let weights = _mm512_fmadd_ps(_mm512_set1_ps(scales[i]), q, _mm512_set1_ps(offsets[i]));
            sums[i] = _mm512_fmadd_ps(weights, floats(&x[i]), sums[i]);
        }
    }

    /// The sum of all lanes of two vectors.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
    pub(crate) fn sum2(v: [__m512; 2]) -> f32 {
        sum(_mm512_add_ps(v[0], v[1]))
    }
}
