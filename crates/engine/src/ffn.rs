//! Feed-forward networks of the SwiGLU form (arXiv 2002.05202): down·(silu(gate·x) ∘ up·x), for many
//! experts and tokens in two parallel steps. It must not know how tokens came to their experts.

use rayon::prelude::*;

use crate::{
    Progress,
    ops::{self, Input, TOKENS, row_products, rows_per_task},
    weights::View,
};

/// Networks whose inputs one thread prepares at a time.
const NETWORKS: usize = 8;

/// One network and the tokens it is applied to.
pub(crate) struct Work<'w> {
    /// hidden → ff.
    pub(crate) gate: View<'w>,
    /// hidden → ff.
    pub(crate) up: View<'w>,
    /// ff → hidden.
    pub(crate) down: View<'w>,
    /// (token, weight of the network's answer in the sum).
    pub(crate) tokens: Vec<(usize, f32)>,
}

/// Σ weight·network(x) per token, in the order of `work`; n × hidden in and out. Every task touches
/// `progress`: the networks may come from a slow disk.
pub(crate) fn forward(
    work: &[Work<'_>],
    x: &[f32],
    hidden: usize,
    progress: &Progress,
) -> Vec<f32> {
    let kernels = quant::row_kernels();
    // Each network's inputs side by side.
    let inputs: Vec<Vec<f32>> = work
        .par_iter()
        .with_min_len(NETWORKS)
        .map(|work| {
            let rows = work
                .tokens
                .iter()
                .map(|(token, _)| &x[token * hidden..(token + 1) * hidden]);
            rows.flatten().copied().collect()
        })
        .collect();
    let inputs: Vec<(Input<'_>, Option<Input<'_>>)> = work
        .par_iter()
        .zip(&inputs)
        .with_min_len(NETWORKS)
        .map(|(work, x)| {
            // Most files have gate and up in one type.
            let of_up = (work.up.grain() != work.gate.grain()).then(|| Input::new(work.up, x));
            (Input::new(work.gate, x), of_up)
        })
        .collect();
    let inner = products(
        work,
        |work| work.gate,
        |work, at, first, count, out| {
            let (of_gate, of_up) = &inputs[at];
            row_products(work.gate, first, count, of_gate, out);
            let mut ups = vec![0.0; out.len()];
            row_products(
                work.up,
                first,
                count,
                of_up.as_ref().unwrap_or(of_gate),
                &mut ups,
            );
            (kernels.swiglu)(out, &ups);
            progress.touch();
        },
    );
    let inputs: Vec<Input<'_>> = work
        .par_iter()
        .zip(&inner)
        .with_min_len(NETWORKS)
        .map(|(work, x)| Input::new(work.down, x))
        .collect();
    let outer = products(
        work,
        |work| work.down,
        |work, at, first, count, out| {
            row_products(work.down, first, count, &inputs[at], out);
            progress.touch();
        },
    );

    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(TOKENS * hidden)
        .enumerate()
        .for_each(|(part, y)| {
            let first = part * TOKENS;
            for (work, outer) in work.iter().zip(&outer) {
                // Tokens are in order.
                let begin = work.tokens.partition_point(|(token, _)| *token < first);
                let outer = outer.chunks_exact(hidden);
                for ((token, weight), outer) in work.tokens.iter().zip(outer).skip(begin) {
                    match y.get_mut((token - first) * hidden..(token - first + 1) * hidden) {
                        Some(y) => ops::add_scaled(y, *weight, outer),
                        None => break,
                    }
                }
            }
        });
    y
}

/// For each network, tokens × rows of the matrix that `matrix` picks. `compute` fills tokens × count for the network at
/// `at` and its `count` rows from `first` on; one parallel step for all of them.
fn products<'w>(
    work: &[Work<'w>],
    matrix: impl Fn(&Work<'w>) -> View<'w>,
    compute: impl Fn(&Work<'w>, usize, usize, usize, &mut [f32]) + Sync,
) -> Vec<Vec<f32>> {
    let mut outs: Vec<Vec<f32>> = work
        .iter()
        .map(|work| vec![0.0; matrix(work).rows() * work.tokens.len()])
        .collect();
    let rows_of = |work: &Work<'w>| rows_per_task(matrix(work).cols, work.tokens.len());
    let mut tasks = Vec::new();
    for (at, (work, out)) in work.iter().zip(&mut outs).enumerate() {
        let (tokens, rows) = (work.tokens.len().max(1), rows_of(work));
        for (task, out) in out.chunks_mut(rows * tokens).enumerate() {
            tasks.push((at, task * rows, out.len() / tokens, out));
        }
    }
    tasks
        .into_par_iter()
        .for_each(|(at, first, count, out)| compute(&work[at], at, first, count, out));
    outs.into_iter()
        .zip(work)
        .map(|(out, work)| ops::assemble(out, work.tokens.len(), rows_of(work)))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::weights::Matrix;

    #[test]
    fn a_network_moves_the_heartbeat() {
        let matrix = Matrix::from_floats(&[1.0, 0.0, 0.0, 1.0], 2).unwrap();
        let work = [Work {
            gate: matrix.view(),
            up: matrix.view(),
            down: matrix.view(),
            tokens: vec![(0, 1.0)],
        }];
        let progress = Progress::default();
        let still = Duration::from_millis(100);
        std::thread::sleep(still);
        assert!(progress.since_touch() >= still);
        let y = forward(&work, &[1.0, 2.0], 2, &progress);
        // silu(1)·1.
        assert!((y[0] - 0.731_058_6).abs() < 1e-6);
        assert!(progress.since_touch() < still);
    }
}
