//! Loops over plain floats: products of a query with rows, weighted sums of rows, exponentials and the gates of
//! feed-forward networks. It must not know attention or networks.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod exp;
#[cfg(target_arch = "x86_64")]
mod vectors;

use crate::cpu::Isa;

/// The loops on one instruction set. What is computed of a row, or of a column, does not depend on how many others
/// are in the call.
#[derive(Clone, Copy, Debug)]
pub struct RowKernels {
    /// out\[q·count + r\] = Σ queries\[q\]\[i\]·rows\[r\]\[i\] for the `count` rows, which lie one after the other
    /// and are as long as each query.
    pub dots: fn(queries: &[&[f32]], rows: &[f32], out: &mut [f32]),
    /// y\[q\]\[i\] += Σ weights\[q\]\[r\]·rows\[r\]\[i\], r in order, for each of the queries whose `width` values y
    /// holds one after the other. Rows have `stride` values, no fewer than `width`; of each only the first count.
    pub add_weighted: fn(y: &mut [f32], width: usize, weights: &[f32], rows: &[f32], stride: usize),
    /// x\[i\] = e^(x\[i\] − top), and their sum. No x is above `top` by 88; below it by more than 87 counts as 87.
    pub exps: fn(x: &mut [f32], top: f32) -> f32,
    /// gate\[i\] = gate\[i\]·sigmoid(gate\[i\])·up\[i\] (arXiv 2002.05202).
    pub swiglu: fn(gate: &mut [f32], up: &[f32]),
}

const SCALAR: RowKernels = RowKernels {
    dots,
    add_weighted,
    exps: |x, top| exp::exps(x, top),
    swiglu: |gate, up| exp::swiglu(gate, up),
};

/// The fastest that this CPU can run.
pub fn row_kernels() -> &'static RowKernels {
    let mut fastest_first = Isa::ALL.into_iter().rev();
    fastest_first.find_map(row_kernels_on).unwrap_or(&SCALAR)
}

/// Those of one instruction set; `None` where there are none or the CPU cannot run them.
pub fn row_kernels_on(isa: Isa) -> Option<&'static RowKernels> {
    match isa {
        Isa::Scalar => Some(&SCALAR),
        // This check makes the kernels sound: they are handed out only where their instructions exist.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => Some(&avx2::KERNELS),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 if isa.available() => Some(&avx512::KERNELS),
        Isa::Avx2 | Isa::Avx512 | Isa::Vnni | Isa::Amx => None,
    }
}

fn dots(queries: &[&[f32]], rows: &[f32], out: &mut [f32]) {
    let len = queries.first().map_or(1, |q| q.len().max(1));
    let count = rows.len() / len;
    for (q, out) in queries.iter().zip(out.chunks_exact_mut(count.max(1))) {
        for (row, out) in rows.chunks_exact(len).zip(out) {
            *out = dot(q, row);
        }
    }
}

/// In sixteen partial sums, which compilers keep in vector registers.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a_blocks, a_rest) = a.as_chunks::<16>();
    let (b_blocks, b_rest) = b.as_chunks::<16>();
    let mut sums = [0.0f32; 16];
    for (a, b) in a_blocks.iter().zip(b_blocks) {
        for lane in 0..16 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

fn add_weighted(y: &mut [f32], width: usize, weights: &[f32], rows: &[f32], stride: usize) {
    let rows = rows.chunks_exact(stride.max(1));
    let weights = weights.chunks_exact(rows.len().max(1));
    for (y, weights) in y.chunks_exact_mut(width.max(1)).zip(weights) {
        for (row, weight) in rows.clone().zip(weights) {
            for (y, x) in y.iter_mut().zip(row) {
                *y += weight * x;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Values between -1 and 1 without a pattern that sums could hide behind.
    fn values(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|at| ((at * 7919 + seed * 104_729) % 2003) as f32 / 1001.0 - 1.0)
            .collect()
    }

    fn kernels() -> impl Iterator<Item = &'static RowKernels> {
        Isa::ALL.into_iter().filter_map(row_kernels_on)
    }

    fn close(found: f32, exact: f64, terms: usize) {
        let bound = (terms as f64 / 8.0 + 8.0) * f64::from(f32::EPSILON) * terms as f64;
        assert!((f64::from(found) - exact).abs() <= bound, "{found} {exact}");
    }

    #[test]
    fn every_path_gives_the_exact_sums_at_odd_sizes() {
        for kernels in kernels() {
            for len in [1, 7, 15, 16, 33, 64, 100, 288, 576] {
                for (rows, queries) in [(0, 1), (1, 4), (3, 1), (4, 5), (5, 8), (9, 3)] {
                    check(kernels, len, rows, queries);
                }
            }
        }
    }

    fn check(kernels: &RowKernels, len: usize, rows: usize, queries: usize) {
        let (q, data) = (values(len * queries, 1), values(len * rows, 2));
        let qs: Vec<&[f32]> = q.chunks_exact(len).collect();
        let mut out = vec![0.0; rows * queries];
        (kernels.dots)(&qs, &data, &mut out);
        let pairs = qs
            .iter()
            .flat_map(|q| data.chunks_exact(len).map(move |row| (q, row)));
        for ((q, row), found) in pairs.zip(out) {
            let terms = q.iter().zip(row);
            let exact = terms.map(|(q, x)| f64::from(*q) * f64::from(*x)).sum();
            close(found, exact, len);
        }

        let width = len - len / 9;
        let weights = values(rows * queries, 3);
        let mut y = values(width * queries, 4);
        let before = y.clone();
        (kernels.add_weighted)(&mut y, width, &weights, &data, len);
        for (at, found) in y.into_iter().enumerate() {
            let column = data.iter().skip(at % width).step_by(len);
            let terms = column
                .zip(&weights[at / width * rows..])
                .map(|(x, weight)| f64::from(*x) * f64::from(*weight));
            close(found, f64::from(before[at]) + terms.sum::<f64>(), rows + 1);
        }
    }

    #[test]
    fn exponentials_and_gates_are_the_same_on_every_path() {
        for len in [0, 1, 7, 8, 9, 64, 100] {
            let (x, up) = (values(len, 5), values(len, 6));
            let exact: f64 = x.iter().map(|x| (f64::from(*x) - 1.0).exp()).sum();
            let gate = |(x, up): (&f32, &f32)| x / (1.0 + (-x).exp()) * up;
            let gated: Vec<f32> = x.iter().zip(&up).map(gate).collect();
            let mut first: Option<(Vec<f32>, Vec<f32>)> = None;
            for kernels in kernels() {
                let mut exps = x.clone();
                close((kernels.exps)(&mut exps, 1.0), exact, len);
                let mut gates = x.clone();
                (kernels.swiglu)(&mut gates, &up);
                for (found, expected) in gates.iter().zip(&gated) {
                    assert!((found - expected).abs() < 1e-6, "{found} {expected}");
                }
                let found = (exps, gates);
                assert_eq!(first.get_or_insert_with(|| found.clone()), &found);
            }
        }
    }

    #[test]
    fn rows_and_queries_give_the_same_alone_and_among_others() {
        for kernels in kernels() {
            let (q, data) = (values(100 * 5, 1), values(100 * 7, 2));
            let qs: Vec<&[f32]> = q.chunks_exact(100).collect();
            let mut together = [0.0; 35];
            (kernels.dots)(&qs, &data, &mut together);
            let mut sums = vec![0.0; 5 * 64];
            (kernels.add_weighted)(&mut sums, 64, &together, &data, 100);
            for (at, q) in qs.iter().enumerate() {
                let mut alone = [0.0; 7];
                for (row, alone) in data.chunks_exact(100).zip(&mut alone) {
                    (kernels.dots)(&[q], row, std::slice::from_mut(alone));
                }
                assert_eq!(alone, together[7 * at..7 * at + 7]);
                let mut sum = vec![0.0; 64];
                (kernels.add_weighted)(&mut sum, 64, &alone, &data, 100);
                assert_eq!(sum, sums[64 * at..64 * at + 64]);
            }
        }
    }
}
