//! Multi-head latent attention (arXiv 2405.04434, section 2.1), absorbed: queries are taken into the
//! space of the compressed keys, so that all heads attend to the same cached rows and nothing per
//! head is ever stored. It must not know what comes before and after it in a layer.

mod attend;

use rayon::prelude::*;

use self::attend::attend;
use crate::{
    Progress,
    config::Config,
    model::Turn,
    ops::{self, Input, matmul},
    rope::Angles,
    weights::{Matrix, Stack},
};

/// Weights of one layer's attention.
pub(crate) struct Attention {
    pub(crate) query: Query,
    /// hidden → kv_lora + rope_dim.
    pub(crate) kv_a: Matrix,
    pub(crate) kv_a_norm: Vec<f32>,
    /// Per head: nope → kv_lora.
    pub(crate) k_b: Stack,
    /// Per head: kv_lora → v_head.
    pub(crate) v_b: Stack,
    /// heads × v_head → hidden.
    pub(crate) output: Matrix,
}

/// How queries are made: hidden → heads × (nope + rope_dim).
pub(crate) enum Query {
    Direct(Matrix),
    Compressed {
        a: Matrix,
        norm: Vec<f32>,
        b: Matrix,
    },
}

impl Attention {
    /// Attends with `x` (n × hidden, normed), the tokens of all turns one after the other, whose
    /// rotations are `angles`. Writes their rows into the turns' caches but does not advance these.
    /// Returns n × hidden.
    pub(crate) fn forward(
        &self,
        config: &Config,
        x: &[f32],
        angles: &[Angles],
        turns: &mut [Turn<'_>],
        layer: usize,
        progress: &Progress,
    ) -> Vec<f32> {
        let rows = self.rows(config, x, angles, progress);
        let mut rows = rows.as_slice();
        for turn in turns.iter_mut() {
            let (own, rest) = rows.split_at(turn.tokens.len() * config.kv_row());
            turn.cache.write(layer, turn.cache.len(), own);
            rows = rest;
        }

        let queries = self.queries(config, x, progress);
        // Per head: n × kv_row.
        let absorbed: Vec<Vec<f32>> = (0..config.heads)
            .into_par_iter()
            .map(|head| self.absorb(config, &queries, angles, head))
            .collect();
        // Per head: n × kv_lora.
        let attended = attend(config, &absorbed, turns, layer, progress);
        // Per head: n × v_head.
        let values: Vec<Vec<f32>> = attended
            .par_iter()
            .enumerate()
            .map(|(head, attended)| {
                let view = self.v_b.view(head);
                let mut out = vec![0.0; view.rows() * angles.len()];
                let rows = view.rows();
                ops::row_products(view, 0, rows, &Input::new(view, attended), &mut out);
                out
            })
            .collect();

        // heads × n × v_head to n × (heads × v_head).
        let mut joined = Vec::with_capacity(angles.len() * config.heads * config.v_head);
        for token in 0..angles.len() {
            for head in &values {
                joined.extend_from_slice(&head[token * config.v_head..(token + 1) * config.v_head]);
            }
        }
        matmul(self.output.view(), &joined, progress)
    }

    /// Cache rows: c = norm(kv_a[..kv_lora]), k_pe = rope(kv_a[kv_lora..]); n × kv_row. The inner
    /// norms take the model's epsilon, as llama.cpp and vLLM have it; transformers always takes 1e-6.
    fn rows(&self, config: &Config, x: &[f32], angles: &[Angles], progress: &Progress) -> Vec<f32> {
        let mut rows = matmul(self.kv_a.view(), x, progress);
        for (row, angles) in rows.chunks_exact_mut(config.kv_row()).zip(angles) {
            let (c, k_pe) = row.split_at_mut(config.kv_lora);
            c.copy_from_slice(&ops::rms_norm(c, &self.kv_a_norm, config.rms_eps));
            angles.turn(k_pe);
        }
        rows
    }

    /// n × heads × (nope + rope_dim).
    fn queries(&self, config: &Config, x: &[f32], progress: &Progress) -> Vec<f32> {
        match &self.query {
            Query::Direct(matrix) => matmul(matrix.view(), x, progress),
            Query::Compressed { a, norm, b } => {
                let compressed = matmul(a.view(), x, progress);
                let normed = ops::rms_norm(&compressed, norm, config.rms_eps);
                matmul(b.view(), &normed, progress)
            }
        }
    }

    /// The head's queries in the space of cached rows: k_b·q_nope ++ rope(q_pe), scaled;
    /// n × kv_row.
    fn absorb(&self, config: &Config, queries: &[f32], angles: &[Angles], head: usize) -> Vec<f32> {
        let size = config.nope + config.rope_dim;
        let of_head: Vec<&[f32]> = queries
            .chunks_exact(size * config.heads)
            .map(|token| &token[head * size..(head + 1) * size])
            .collect();
        let nope: Vec<f32> = of_head
            .iter()
            .flat_map(|q| &q[..config.nope])
            .copied()
            .collect();
        let mut keys = vec![0.0; config.kv_lora * of_head.len()];
        let view = self.k_b.view(head);
        let input = Input::new(view, &nope);
        ops::row_products(view, 0, config.kv_lora, &input, &mut keys);

        let mut absorbed = Vec::with_capacity(of_head.len() * config.kv_row());
        for ((q, key), angles) in of_head
            .iter()
            .zip(keys.chunks_exact(config.kv_lora))
            .zip(angles)
        {
            absorbed.extend_from_slice(key);
            let at = absorbed.len();
            absorbed.extend_from_slice(&q[config.nope..]);
            angles.turn(&mut absorbed[at..]);
        }
        let scale = config.attention_scale();
        absorbed.iter_mut().for_each(|q| *q *= scale);
        absorbed
    }
}
