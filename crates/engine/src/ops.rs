//! Arithmetic on rows of floats: products with weights, norms, softmax. Every output value is
//! computed by one thread in one order, whatever else is computed with it, so that neither the number
//! of threads nor the size of a batch ever shows in a result. It must not know layers.

use quant::Activations;
use rayon::prelude::*;

use crate::{Progress, weights::View};

/// Multiply-adds worth handing to another thread.
const TASK: usize = 1 << 17;

/// Rows that kernels take together: tasks have whole multiples of them.
const STRIP: usize = 8;

/// Fewest rows of a task with many tokens.
const TASK_ROWS: usize = 64;

/// Tokens that one thread rounds or puts together at a time.
pub(crate) const TOKENS: usize = 32;

/// The tokens × cols values that a matrix is multiplied with, as its kernels take them.
pub(crate) enum Input<'x> {
    Floats(&'x [f32]),
    Int8(Activations),
}

impl<'x> Input<'x> {
    /// `x` (tokens × cols) for products with `w`, and with all views of the same grain and width.
    pub(crate) fn new(w: View<'_>, x: &'x [f32]) -> Self {
        let Some(grain) = w.grain() else {
            return Self::Floats(x);
        };
        let parts = x.par_chunks(w.cols * TOKENS);
        let parts = parts.map(|x| Activations::quantize(grain, x, w.cols));
        Self::Int8(Activations::join(parts.collect()))
    }
}

/// y\[t\]\[r\] = Σ w\[r\]\[c\]·x\[t\]\[c\]: tokens × cols in, tokens × rows out. Every task touches
/// `progress`: the rows may come from a slow disk.
pub(crate) fn matmul(w: View<'_>, x: &[f32], progress: &Progress) -> Vec<f32> {
    let tokens = x.len() / w.cols;
    if tokens == 0 {
        return Vec::new();
    }
    let x = Input::new(w, x);
    let rows = rows_per_task(w.cols, tokens);
    let mut y = vec![0.0; w.rows() * tokens];
    y.par_chunks_mut(rows * tokens)
        .enumerate()
        .for_each(|(task, out)| {
            row_products(w, task * rows, out.len() / tokens, &x, out);
            progress.touch();
        });
    assemble(y, tokens, rows)
}

/// Rows that make one task for a product with this many tokens.
pub(crate) fn rows_per_task(cols: usize, tokens: usize) -> usize {
    (TASK / (cols * tokens).max(1))
        .max(if tokens > 1 { TASK_ROWS } else { STRIP })
        .next_multiple_of(STRIP)
}

/// out\[t\]\[r\] = Σ w\[first + r\]\[c\]·x\[t\]\[c\] for `count` rows: tokens × count.
pub(crate) fn row_products(
    w: View<'_>,
    first: usize,
    count: usize,
    x: &Input<'_>,
    out: &mut [f32],
) {
    match x {
        Input::Floats(x) => {
            for row in 0..count {
                for (x, out) in x.chunks_exact(w.cols).zip(out.chunks_exact_mut(count)) {
                    out[row] = w.dot(first + row, x);
                }
            }
        }
        Input::Int8(x) => w.multiply(first, count, x, out),
    }
}

/// tokens × rows from the results of tasks, each tokens × at most `task` of the rows.
pub(crate) fn assemble(y: Vec<f32>, tokens: usize, task: usize) -> Vec<f32> {
    if tokens <= 1 || y.len() <= task * tokens {
        return y;
    }
    let rows = y.len() / tokens;
    let mut whole = vec![0.0; y.len()];
    whole
        .par_chunks_mut(rows)
        .with_min_len(TOKENS)
        .enumerate()
        .for_each(|(token, out)| {
            for (out, of_task) in out.chunks_mut(task).zip(y.chunks(task * tokens)) {
                out.copy_from_slice(&of_task[token * out.len()..(token + 1) * out.len()]);
            }
        });
    whole
}

/// y\[i\] += scale·x\[i\].
pub(crate) fn add_scaled(y: &mut [f32], scale: f32, x: &[f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y += scale * x;
    }
}

/// Each row of `weight.len()` values divided by its root mean square, times `weight`
/// (arXiv 1910.07467).
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    for (x, y) in x
        .chunks_exact(weight.len())
        .zip(y.chunks_exact_mut(weight.len()))
    {
        let squares = sum_of_squares(x);
        let scale = (squares / x.len() as f64 + f64::from(eps)).sqrt().recip() as f32;
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * weight;
        }
    }
    y
}

/// In eight partial sums, which do not wait for one another.
fn sum_of_squares(x: &[f32]) -> f64 {
    let (eights, rest) = x.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        for (sum, x) in sums.iter_mut().zip(eight) {
            *sum += f64::from(*x) * f64::from(*x);
        }
    }
    let rest = rest.iter().map(|x| f64::from(*x) * f64::from(*x));
    sums.into_iter().chain(rest).sum()
}

/// Exponentials of a row over their sum.
pub(crate) fn softmax(x: &mut [f32]) {
    let top = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0f64;
    for x in x.iter_mut() {
        *x = (*x - top).exp();
        sum += f64::from(*x);
    }
    let scale = sum.recip() as f32;
    for x in x {
        *x *= scale;
    }
}

pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::weights::Matrix;

    #[test]
    fn softmax_of_large_values_is_finite() {
        let mut x = [1000.0, 1000.0, -1000.0];
        softmax(&mut x);
        assert_eq!(x, [0.5, 0.5, 0.0]);
    }

    #[test]
    fn rms_norm_of_equal_values_is_the_weight() {
        let y = rms_norm(&[3.0, 3.0, -2.0, -2.0], &[1.0, 0.5], 0.0);
        for (y, expected) in y.iter().zip([1.0, 0.5, -1.0, -0.5]) {
            assert!((y - expected).abs() < 1e-6);
        }
    }

    #[test]
    fn a_product_moves_the_heartbeat() {
        let matrix = Matrix::from_floats(&[1.0, 2.0, 3.0, 4.0], 2).unwrap();
        let progress = Progress::default();
        let still = Duration::from_millis(100);
        std::thread::sleep(still);
        assert!(progress.since_touch() >= still);
        assert_eq!(matmul(matrix.view(), &[1.0, 1.0], &progress), [3.0, 7.0]);
        assert!(progress.since_touch() < still);
    }

    #[test]
    fn results_of_tasks_come_in_the_order_of_rows() {
        // Two tokens, five rows, two to a task; tens are tokens.
        let tasks = vec![0.0, 1.0, 10.0, 11.0, 2.0, 3.0, 12.0, 13.0, 4.0, 14.0];
        let expected = [0.0, 1.0, 2.0, 3.0, 4.0, 10.0, 11.0, 12.0, 13.0, 14.0];
        assert_eq!(assemble(tasks, 2, 2), expected);
    }
}
