//! Feed-forward networks of the SwiGLU form (arXiv 2002.05202): down·(silu(gate·x) ∘ up·x), for many
//! experts and tokens in two parallel steps. It must not know how tokens came to their experts.

use rayon::prelude::*;

use crate::{
    Progress,
    ops::{self, Input, row_products, rows_per_task, silu},
    weights::View,
};

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
    // Each network's inputs side by side.
    let inputs: Vec<Vec<f32>> = work
        .iter()
        .map(|work| {
            let rows = work
                .tokens
                .iter()
                .map(|(token, _)| &x[token * hidden..(token + 1) * hidden]);
            rows.flatten().copied().collect()
        })
        .collect();

    let inputs: Vec<(Input<'_>, Option<Input<'_>>)> = work
        .iter()
        .zip(&inputs)
        .map(|(work, x)| {
            // Most files have gate and up in one type.
            let of_up = (work.up.grain() != work.gate.grain()).then(|| Input::new(work.up, x));
            (Input::new(work.gate, x), of_up)
        })
        .collect();

    let inner = products(
        work,
        |work| work.gate,
        |work, first, out, at| {
            let tokens = work.tokens.len();
            let (of_gate, of_up) = &inputs[at];
            row_products(work.gate, first, tokens, of_gate, out);
            let mut up = vec![0.0; out.len()];
            row_products(
                work.up,
                first,
                tokens,
                of_up.as_ref().unwrap_or(of_gate),
                &mut up,
            );
            for (gate, up) in out.iter_mut().zip(up) {
                *gate = silu(*gate) * up;
            }
            progress.touch();
        },
    );
    let inputs: Vec<Input<'_>> = work
        .iter()
        .zip(&inner)
        .map(|(work, x)| Input::new(work.down, x))
        .collect();
    let outer = products(
        work,
        |work| work.down,
        |work, first, out, at| {
            row_products(work.down, first, work.tokens.len(), &inputs[at], out);
            progress.touch();
        },
    );

    let mut y = vec![0.0; x.len()];
    for (work, outer) in work.iter().zip(&outer) {
        for ((token, weight), outer) in work.tokens.iter().zip(outer.chunks_exact(hidden)) {
            ops::add_scaled(&mut y[token * hidden..(token + 1) * hidden], *weight, outer);
        }
    }
    y
}

/// For each network, tokens × rows of the matrix that `matrix` picks. `compute` fills rows × tokens
/// from row `first` on for the network at `at`; one parallel step for all of them.
fn products<'w>(
    work: &[Work<'w>],
    matrix: impl Fn(&Work<'w>) -> View<'w>,
    compute: impl Fn(&Work<'w>, usize, &mut [f32], usize) + Sync,
) -> Vec<Vec<f32>> {
    let mut outs: Vec<Vec<f32>> = work
        .iter()
        .map(|work| vec![0.0; matrix(work).rows() * work.tokens.len()])
        .collect();
    let mut tasks = Vec::new();
    for (at, (work, out)) in work.iter().zip(&mut outs).enumerate() {
        let tokens = work.tokens.len();
        let rows = rows_per_task(matrix(work).cols, tokens);
        for (task, out) in out.chunks_mut((rows * tokens).max(1)).enumerate() {
            tasks.push((at, task * rows, out));
        }
    }
    tasks
        .into_par_iter()
        .for_each(|(at, first, out)| compute(&work[at], first, out, at));
    outs.into_iter()
        .zip(work)
        .map(|(out, work)| ops::transpose(out, work.tokens.len()))
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
        assert!((y[0] - silu(1.0)).abs() < 1e-6);
        assert!(progress.since_touch() < still);
    }
}
