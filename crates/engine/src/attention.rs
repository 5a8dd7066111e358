//! Multi-head latent attention (arXiv 2405.04434, section 2.1), absorbed: queries are taken into the
//! space of the compressed keys, so that all heads attend to the same cached rows and nothing per
//! head is ever stored. It must not know what comes before and after it in a layer.

use rayon::prelude::*;

use crate::{
    Progress,
    config::Config,
    kv_cache::KvCache,
    ops::{self, matmul},
    rope::Angles,
    weights::{Matrix, Stack},
};

/// Cached rows that are read at once: 64 rows of 576 floats stay in the second-level cache.
const TILE: usize = 64;

/// Most heads that share the reading of a tile.
const HEADS_PER_TASK: usize = 8;

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
    /// Attends with `x` (n × hidden, normed) at the positions after `cache.len()`, whose rotations
    /// are `angles`. Writes the tokens' rows into the cache but does not advance it. Returns
    /// n × hidden.
    pub(crate) fn forward(
        &self,
        config: &Config,
        x: &[f32],
        angles: &[Angles],
        cache: &mut KvCache,
        layer: usize,
        progress: &Progress,
    ) -> Vec<f32> {
        let start = cache.len();

        // Cache rows: c = norm(kv_a[..kv_lora]), k_pe = rope(kv_a[kv_lora..]). The inner norms take the
        // model's epsilon, as llama.cpp and vLLM have it; transformers always takes 1e-6.
        let mut rows = matmul(self.kv_a.view(), x, progress);
        for (row, angles) in rows.chunks_exact_mut(config.kv_row()).zip(angles) {
            let (c, k_pe) = row.split_at_mut(config.kv_lora);
            c.copy_from_slice(&ops::rms_norm(c, &self.kv_a_norm, config.rms_eps));
            angles.turn(k_pe);
        }
        cache.write(layer, start, &rows);

        let queries = match &self.query {
            Query::Direct(matrix) => matmul(matrix.view(), x, progress),
            Query::Compressed { a, norm, b } => {
                let compressed = matmul(a.view(), x, progress);
                matmul(
                    b.view(),
                    &ops::rms_norm(&compressed, norm, config.rms_eps),
                    progress,
                )
            }
        };

        let cache = &*cache;
        let heads: Vec<usize> = (0..config.heads).collect();
        let per_task = config
            .heads
            .div_ceil(rayon::current_num_threads())
            .clamp(1, HEADS_PER_TASK);
        let values: Vec<Vec<f32>> = heads
            .par_chunks(per_task)
            .flat_map_iter(|heads| {
                let absorbed: Vec<_> = heads
                    .iter()
                    .map(|head| self.absorb(config, &queries, angles, *head))
                    .collect();
                let attended = attend(config, &absorbed, cache, layer, start, progress);
                // Per head: n × v_head.
                heads.iter().zip(attended).map(|(head, c)| {
                    let view = self.v_b.view(*head);
                    let mut out = vec![0.0; view.rows() * angles.len()];
                    ops::row_products(view, 0, &c, &mut out);
                    ops::transpose(out, angles.len())
                })
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
        ops::row_products(self.k_b.view(head), 0, &nope, &mut keys);
        let keys = ops::transpose(keys, of_head.len());

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

/// For each head, softmax(q·rows)·c over the rows up to each token's own: n × kv_lora. One pass over
/// the cache with a running maximum (arXiv 2205.14135); tiles begin at fixed positions, so a token's
/// result does not depend on how many came with it.
fn attend(
    config: &Config,
    queries: &[Vec<f32>],
    cache: &KvCache,
    layer: usize,
    start: usize,
    progress: &Progress,
) -> Vec<Vec<f32>> {
    let row = config.kv_row();
    let tokens = queries.first().map_or(0, |queries| queries.len() / row);
    let mut states: Vec<Vec<Running>> = queries
        .iter()
        .map(|_| (0..tokens).map(|_| Running::new(config.kv_lora)).collect())
        .collect();

    let end = start + tokens;
    let mut tile = vec![0.0; TILE * row];
    for first in (0..end).step_by(TILE) {
        let tile = &mut tile[..TILE.min(end - first) * row];
        cache.read(layer, first, tile);
        for (queries, states) in queries.iter().zip(&mut states) {
            for (token, (q, state)) in queries.chunks_exact(row).zip(states).enumerate() {
                let visible = (start + token + 1).saturating_sub(first).min(TILE);
                state.add(q, &tile[..visible.min(tile.len() / row) * row]);
            }
        }
        progress.touch();
    }
    states
        .into_iter()
        .map(|states| states.into_iter().flat_map(Running::finish).collect())
        .collect()
}

/// A softmax-weighted sum under way.
struct Running {
    /// Largest score so far; weights are relative to it.
    top: f32,
    weights: f32,
    sum: Vec<f32>,
}

impl Running {
    fn new(values: usize) -> Self {
        Self {
            top: f32::NEG_INFINITY,
            weights: 0.0,
            sum: vec![0.0; values],
        }
    }

    fn add(&mut self, q: &[f32], rows: &[f32]) {
        let mut scores = [0.0; TILE];
        let count = rows.len() / q.len();
        let scores = &mut scores[..count];
        for (score, row) in scores.iter_mut().zip(rows.chunks_exact(q.len())) {
            *score = ops::dot(q, row);
        }
        let top = scores.iter().copied().fold(self.top, f32::max);
        if top > self.top {
            let shrink = (self.top - top).exp();
            self.weights *= shrink;
            self.sum.iter_mut().for_each(|sum| *sum *= shrink);
            self.top = top;
        }
        for (score, row) in scores.iter().zip(rows.chunks_exact(q.len())) {
            let weight = (score - self.top).exp();
            self.weights += weight;
            ops::add_scaled(&mut self.sum, weight, row);
        }
    }

    fn finish(mut self) -> Vec<f32> {
        let scale = self.weights.recip();
        self.sum.iter_mut().for_each(|sum| *sum *= scale);
        self.sum
    }
}
