//! The dot product of every type of levels with AVX2. It must not be called without AVX2, FMA and F16C.

use std::arch::x86_64::*;
use std::marker::PhantomData;

use super::{Coded, Levels, split};
use crate::each::each;
use crate::int8::avx2::{self as int8, Form, Smallblock, Superblock};
use crate::int8::paths::products;
use crate::int8::{Activations, Rows};
use crate::x86::avx2 as x86;

/// Only [`crate::kernels_on`] hands this out, after checking the CPU.
pub(super) fn dot<B: Levels<N>, const N: usize>(row: &[u8], x: &[f32]) -> f32 {
    // SAFETY: kernels_on has found the instructions available.
    unsafe { dot_avx2::<B, N>(row, x) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dot_avx2<B: Levels<N>, const N: usize>(row: &[u8], x: &[f32]) -> f32 {
    let mut sums = [_mm256_setzero_ps(); 2];
    let (row, blocks) = split::<B, N>(row);
    for (block, x) in blocks.iter().zip(x.as_chunks::<N>().0) {
        let scale = block.scale(row);
        let groups = x.as_chunks::<8>().0.as_chunks::<4>().0;
        // Written out: by a constant place, bytes are shifted all at once, for which there is no shift by a variable.
        macro_rules! add {
            ($($index:literal)*) => {$(
                if let Some(x) = groups.get($index) {
                    let group = block.group(scale, $index);
                    let q = x86::widen(load(&group.levels));
                    for half in 0..2 {
                        let first = _mm256_mul_ps(q[2 * half], x86::floats(&x[2 * half]));
                        let x = x86::floats(&x[2 * half + 1]);
                        let both = _mm256_fmadd_ps(q[2 * half + 1], x, first);
                        let scale = _mm256_set1_ps(group.scales[half]);
                        sums[half] = _mm256_fmadd_ps(scale, both, sums[half]);
                    }
                }
            )*};
        }
        add!(0 1 2 3 4 5 6 7);
    }
    x86::sum(_mm256_add_ps(sums[0], sums[1]))
}

products!(
    superblocks<B: Levels<N>, N>, int8,
    |rows, x, out| int8::superblocks::<B, Signs<B, N>>(rows, x, out, split::<B, N>, |block, row| open(block, row))
);

products!(
    smallblocks<B: Levels<N>, N>, int8,
    |rows, x, out| int8::smallblocks::<B, Signs<B, N>>(rows, x, out, |block| open_small(block))
);

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open<B: Levels<N>, const N: usize>(block: &B, row: f32) -> Superblock {
    let groups = each!(8, |index| block.group(B::WHOLE, index));
    Superblock {
        d: block.scale(row) / B::WHOLE,
        scales: int8::of_halves(each!(2, |half| each!(8, |index| groups[index].scales[half]))),
        offset: 0.0,
        offsets: _mm256_setzero_si256(),
        levels: each!(8, |index| load(&groups[index].levels)),
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn open_small<B: Levels<N>, const N: usize>(block: &B) -> Smallblock {
    let group = block.group(block.scale(1.0), 0);
    Smallblock {
        d: group.scales[0],
        offset: 0.0,
        levels: load(&group.levels),
    }
}

/// Signed levels up to the type's largest.
struct Signs<B, const N: usize>(PhantomData<B>);

impl<B: Levels<N>, const N: usize> Form for Signs<B, N> {
    const ALIKE: usize = B::ALIKE;
    const STEPS: usize = int8::steps(B::LARGEST, B::ALIKE);
    const SIGNED: bool = true;
    const PARTS: usize = int8::parts(B::LARGEST, int8::SCALE);
}

/// Which of the cases it is, the compiler knows for each type.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(levels: &Coded) -> __m256i {
    match levels {
        Coded::Levels(levels) => x86::bytes32(bytemuck::cast_ref(levels)),
        Coded::Signed(vectors, signs) => {
            let negative = x86::spread_bits(*signs);
            _mm256_sub_epi8(_mm256_xor_si256(eights(vectors), negative), negative)
        }
        Coded::Nudged(vectors, bits) => {
            // −1 with its lowest bit set stays −1, 0 becomes 1.
            let nudge = _mm256_or_si256(x86::spread_bits(*bits), _mm256_set1_epi8(1));
            _mm256_add_epi8(eights(vectors), nudge)
        }
        Coded::Sixteen(values, tables) => look_up(tables, x86::bytes32(values)),
        Coded::Pairs(values, tables) => {
            let values = _mm256_broadcastsi128_si256(x86::bytes16(values));
            // The first level of each pair in the lower half, the second in the upper one.
            let [low, high] = each!(2, |part| look_up(
                &[&tables[0][part], &tables[1][part]],
                values
            ));
            let apart = _mm256_blendv_epi8(low, high, _mm256_slli_epi16::<3>(values));
            let (first, second) = (
                _mm256_castsi256_si128(apart),
                _mm256_extracti128_si256::<1>(apart),
            );
            _mm256_set_m128i(
                _mm_unpackhi_epi8(first, second),
                _mm_unpacklo_epi8(first, second),
            )
        }
        Coded::ThirtyTwo(values, tables) => {
            let values = x86::bytes32(values);
            let [low, high] = each!(2, |half| look_up(
                &[&tables[0][half], &tables[1][half]],
                values
            ));
            // Bit 4 chooses; the instruction wants it on top of its byte.
            _mm256_blendv_epi8(low, high, _mm256_slli_epi16::<3>(values))
        }
    }
}

/// The entries of each half's table; of the values only the low four bits count.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn look_up(tables: &[&[i8; 16]; 2], values: __m256i) -> __m256i {
    let [low, high] = each!(2, |half| x86::bytes16(bytemuck::cast_ref(tables[half])));
    _mm256_shuffle_epi8(_mm256_set_m128i(high, low), values)
}

/// Put together in registers: a store of each and a load of all would wait for one another.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn eights(vectors: &[u64; 4]) -> __m256i {
    let [a, b, c, d] = *vectors;
    _mm256_set_epi64x(d as i64, c as i64, b as i64, a as i64)
}
