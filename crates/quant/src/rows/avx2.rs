//! The two loops with AVX2: four rows share the loads of a query, and 32 columns of a weighted sum stay in registers
//! while all rows pass. It must not be called without AVX2 and FMA.

use std::arch::x86_64::*;

use super::RowKernels;
use crate::x86::avx2 as x86;

pub(super) const KERNELS: RowKernels = RowKernels { dots, add_weighted };

/// Only [`super::row_kernels_on`] hands this out, after checking the CPU.
fn dots(q: &[f32], rows: &[f32], out: &mut [f32]) {
    // SAFETY: row_kernels_on has found the instructions available.
    unsafe { dots_avx2(q, rows, out) }
}

/// Only [`super::row_kernels_on`] hands this out, after checking the CPU.
fn add_weighted(y: &mut [f32], weights: &[f32], rows: &[f32], stride: usize) {
    // SAFETY: row_kernels_on has found the instructions available.
    unsafe { add_weighted_avx2(y, weights, rows, stride) }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn dots_avx2(q: &[f32], rows: &[f32], out: &mut [f32]) {
    let mut rows = rows.chunks_exact(q.len().max(1));
    let (fours, rest) = out.as_chunks_mut::<4>();
    for out in fours {
        let (Some(a), Some(b), Some(c), Some(d)) =
            (rows.next(), rows.next(), rows.next(), rows.next())
        else {
            return;
        };
        *out = of_rows(q, [a, b, c, d]);
    }
    for (out, row) in rest.iter_mut().zip(rows) {
        [*out] = of_rows(q, [row]);
    }
}

/// Each row in two running sums of eight lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn of_rows<const N: usize>(q: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    let blocks = rows.map(|row| row.as_chunks::<8>().0.as_chunks::<2>().0);
    let qs = q.as_chunks::<8>().0.as_chunks::<2>().0;
    let mut sums = [[_mm256_setzero_ps(); 2]; N];
    for (at, [q0, q1]) in qs.iter().enumerate() {
        let (q0, q1) = (x86::floats(q0), x86::floats(q1));
        for ([a, b], blocks) in sums.iter_mut().zip(blocks) {
            let [x0, x1] = &blocks[at];
            *a = _mm256_fmadd_ps(x86::floats(x0), q0, *a);
            *b = _mm256_fmadd_ps(x86::floats(x1), q1, *b);
        }
    }
    let done = qs.len() * 16;
    let mut out = [0.0; N];
    for ((out, row), [a, b]) in out.iter_mut().zip(rows).zip(sums) {
        let rest = q[done..].iter().zip(&row[done..]);
        *out = x86::sum(_mm256_add_ps(a, b)) + rest.map(|(q, x)| q * x).sum::<f32>();
    }
    out
}

#[target_feature(enable = "avx2,fma,f16c")]
fn add_weighted_avx2(y: &mut [f32], weights: &[f32], rows: &[f32], stride: usize) {
    let stride = stride.max(1);
    let (columns, rest) = y.as_chunks_mut::<8>();
    let (columns, odd) = columns.as_chunks_mut::<4>();
    let mut first = 0;
    for y in columns {
        let [a, b, c, d] = &*y;
        let mut sums = [
            x86::floats(a),
            x86::floats(b),
            x86::floats(c),
            x86::floats(d),
        ];
        for (row, weight) in rows.chunks_exact(stride).zip(weights) {
            let weight = _mm256_set1_ps(*weight);
            let x = row[first..first + 32].as_chunks::<8>().0;
            for (sum, x) in sums.iter_mut().zip(x) {
                *sum = _mm256_fmadd_ps(weight, x86::floats(x), *sum);
            }
        }
        for (y, sum) in y.iter_mut().zip(sums) {
            store(y, sum);
        }
        first += 32;
    }
    let rest = odd.as_flattened_mut().iter_mut().chain(rest);
    for (at, y) in (first..).zip(rest) {
        for (row, weight) in rows.chunks_exact(stride).zip(weights) {
            *y = weight.mul_add(row[at], *y);
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn store(out: &mut [f32; 8], values: __m256) {
    // SAFETY: the array has the 32 bytes written; the store needs no alignment.
    unsafe { _mm256_storeu_ps(out.as_mut_ptr(), values) }
}
