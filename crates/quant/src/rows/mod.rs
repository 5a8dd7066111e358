//! Products of a query with rows of plain floats, and weighted sums of such rows: the two loops of attention over a
//! decoded tile of its cache. It must not know attention.

#[cfg(target_arch = "x86_64")]
mod avx2;

use crate::cpu::Isa;

/// The two loops on one instruction set. What is computed of a row, or of a column, does not depend on how many others
/// are in the call.
#[derive(Clone, Copy, Debug)]
pub struct RowKernels {
    /// out\[r\] = Σ q\[i\]·rows\[r\]\[i\], rows of `q.len()` values one after the other, as many as `out` has values.
    pub dots: fn(q: &[f32], rows: &[f32], out: &mut [f32]),
    /// y\[i\] += Σ weights\[r\]·rows\[r\]\[i\], r in order. Rows have `stride` values, no fewer than `y`; of each only
    /// the first `y.len()` count.
    pub add_weighted: fn(y: &mut [f32], weights: &[f32], rows: &[f32], stride: usize),
}

const SCALAR: RowKernels = RowKernels { dots, add_weighted };

/// The fastest that this CPU can run.
pub fn row_kernels() -> &'static RowKernels {
    row_kernels_on(Isa::Avx2).unwrap_or(&SCALAR)
}

/// Those of one instruction set; `None` where there are none or the CPU cannot run them.
pub fn row_kernels_on(isa: Isa) -> Option<&'static RowKernels> {
    match isa {
        Isa::Scalar => Some(&SCALAR),
        // This check makes the kernels sound: they are handed out only where their instructions exist.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 if isa.available() => Some(&avx2::KERNELS),
        Isa::Avx2 | Isa::Avx512 => None,
    }
}

fn dots(q: &[f32], rows: &[f32], out: &mut [f32]) {
    for (row, out) in rows.chunks_exact(q.len().max(1)).zip(out) {
        *out = dot(q, row);
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

fn add_weighted(y: &mut [f32], weights: &[f32], rows: &[f32], stride: usize) {
    for (row, weight) in rows.chunks_exact(stride.max(1)).zip(weights) {
        for (y, x) in y.iter_mut().zip(row) {
            *y += weight * x;
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
                for rows in [0, 1, 3, 4, 5, 9] {
                    let (q, data) = (values(len, 1), values(len * rows, 2));
                    let mut out = vec![0.0; rows];
                    (kernels.dots)(&q, &data, &mut out);
                    for (row, found) in data.chunks_exact(len).zip(out) {
                        let terms = q.iter().zip(row);
                        let exact = terms.map(|(q, x)| f64::from(*q) * f64::from(*x)).sum();
                        close(found, exact, len);
                    }

                    let width = len - len / 9;
                    let weights = values(rows, 3);
                    let mut y = values(width, 4);
                    let before = y.clone();
                    (kernels.add_weighted)(&mut y, &weights, &data, len);
                    for (at, found) in y.into_iter().enumerate() {
                        let column = data.iter().skip(at).step_by(len);
                        let terms = column
                            .zip(&weights)
                            .map(|(x, weight)| f64::from(*x) * f64::from(*weight));
                        close(found, f64::from(before[at]) + terms.sum::<f64>(), rows + 1);
                    }
                }
            }
        }
    }

    #[test]
    fn a_row_gives_the_same_alone_and_among_others() {
        for kernels in kernels() {
            let (q, data) = (values(100, 1), values(100 * 7, 2));
            let mut together = [0.0; 7];
            (kernels.dots)(&q, &data, &mut together);
            for (row, together) in data.chunks_exact(100).zip(together) {
                let mut alone = [0.0];
                (kernels.dots)(&q, row, &mut alone);
                assert_eq!(alone[0].to_bits(), together.to_bits());
            }
        }
    }
}
