//! Arithmetic on rows of floats: products with weights, norms, softmax. Every output value is
//! computed by one thread in one order, whatever else is computed with it, so that neither the number
//! of threads nor the size of a batch ever shows in a result. It must not know layers.

use quant::Activations;
use rayon::prelude::*;

use crate::{Progress, weights::View};

/// Multiply-adds worth handing to another thread.
const TASK: usize = 1 << 17;

/// Fewest rows of a task with many tokens: while a tile of activations is in the nearest cache, these are multiplied
/// with it.
const TASK_ROWS: usize = 16;

/// The tokens × cols values that a matrix is multiplied with, as its kernels take them.
pub(crate) enum Input<'x> {
    Floats(&'x [f32]),
    Int8(Activations),
}

impl<'x> Input<'x> {
    /// `x` (tokens × cols) for products with `w`, and with all views of the same grain and width.
    pub(crate) fn new(w: View<'_>, x: &'x [f32]) -> Self {
        match w.grain() {
            Some(grain) => Self::Int8(Activations::quantize(grain, x, w.cols)),
            None => Self::Floats(x),
        }
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
    let mut y = vec![0.0; w.rows() * tokens];
    y.par_chunks_mut(rows_per_task(w.cols, tokens) * tokens)
        .enumerate()
        .for_each(|(task, out)| {
            row_products(w, task * rows_per_task(w.cols, tokens), tokens, &x, out);
            progress.touch();
        });
    transpose(y, tokens)
}

/// Rows that make one task for a product with this many tokens.
pub(crate) fn rows_per_task(cols: usize, tokens: usize) -> usize {
    (TASK / (cols * tokens).max(1)).max(if tokens > 1 { TASK_ROWS } else { 1 })
}

/// out\[r\]\[t\] = Σ w\[first + r\]\[c\]·x\[t\]\[c\]: row-major, unlike [`matmul`], so that tasks
/// own what they write.
pub(crate) fn row_products(
    w: View<'_>,
    first: usize,
    tokens: usize,
    x: &Input<'_>,
    out: &mut [f32],
) {
    let tokens = tokens.max(1);
    match x {
        Input::Floats(x) => {
            for (row, out) in out.chunks_exact_mut(tokens).enumerate() {
                for (x, out) in x.chunks_exact(w.cols).zip(out) {
                    *out = w.dot(first + row, x);
                }
            }
        }
        Input::Int8(x) => {
            let mut at = 0;
            for tile in x.tiles() {
                let of_tile = at..at + tile.tokens();
                at = of_tile.end;
                for (row, out) in out.chunks_exact_mut(tokens).enumerate() {
                    w.multiply(first + row, tile, &mut out[of_tile.clone()]);
                }
            }
        }
    }
}

/// rows × tokens to tokens × rows.
pub(crate) fn transpose(y: Vec<f32>, tokens: usize) -> Vec<f32> {
    if tokens <= 1 {
        return y;
    }
    let rows = y.len() / tokens;
    let mut turned = vec![0.0; y.len()];
    for (token, out) in turned.chunks_exact_mut(rows).enumerate() {
        for (row, out) in out.iter_mut().enumerate() {
            *out = y[row * tokens + token];
        }
    }
    turned
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
        let squares: f64 = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        let scale = (squares / x.len() as f64 + f64::from(eps)).sqrt().recip() as f32;
        for ((y, x), weight) in y.iter_mut().zip(x).zip(weight) {
            *y = x * scale * weight;
        }
    }
    y
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

/// x·sigmoid(x) (arXiv 1702.03118).
pub(crate) fn silu(x: f32) -> f32 {
    x * sigmoid(x)
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
    fn transposes() {
        assert_eq!(
            transpose(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2),
            [1.0, 3.0, 5.0, 2.0, 4.0, 6.0]
        );
    }
}
