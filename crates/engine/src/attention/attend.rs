//! softmax(q·rows)·c over the cache, tile by tile with a running maximum (arXiv 2205.14135): neither
//! the scores of a whole context nor a copy of the cache ever exist. It must not know weights.
//!
//! Tiles and segments begin at fixed positions, sums over tiles are folded into their segment's and
//! these into the whole in order, so that a token's result depends neither on the number of threads
//! nor on the tokens and conversations that are computed with it.

use std::ops::Range;

use quant::RowKernels;
use rayon::prelude::*;

use crate::{Progress, config::Config, kv_cache::KvCache, model::Turn, ops};

/// Cached rows that are decoded at once: 64 rows of 576 floats stay in the second-level cache.
const TILE: usize = 64;

/// Cached rows whose sums are made apart from the others', perhaps by another thread.
const SEGMENT: usize = 16 * TILE;

/// Most heads and tokens that share the decoding of a tile.
const HEADS_PER_BLOCK: usize = 8;
const TOKENS_PER_BLOCK: usize = 16;

/// Pieces of work worth having per thread.
const TASKS_PER_THREAD: usize = 4;

/// For each head, softmax(q·rows)·c over the rows up to each token's own: n × kv_lora. `queries` are
/// n × kv_row per head, the tokens of all turns one after the other; their rows are in the caches.
///
/// Beyond what it returns it holds sums for [`segments_at_once`] segments and a tile per thread,
/// whatever the length of the context.
pub(super) fn attend(
    config: &Config,
    queries: &[Vec<f32>],
    turns: &[Turn<'_>],
    layer: usize,
    progress: &Progress,
) -> Vec<Vec<f32>> {
    let blocks = blocks(config, queries, turns, layer);
    let at_once = segments_at_once(blocks.len(), rayon::current_num_threads());
    let sums: Vec<Sums> = blocks
        .par_iter()
        .map(|block| block.attend(config, at_once, progress))
        .collect();

    let tokens: usize = turns.iter().map(|turn| turn.tokens.len()).sum();
    let mut attended: Vec<Vec<f32>> = (0..config.heads)
        .map(|_| Vec::with_capacity(tokens * config.kv_lora))
        .collect();
    for (block, sums) in blocks.iter().zip(sums) {
        let finished = sums.finish();
        let mut finished = finished.chunks_exact(config.kv_lora);
        for _ in 0..block.tokens() {
            for (head, finished) in block.heads.clone().zip(&mut finished) {
                attended[head].extend_from_slice(finished);
            }
        }
    }
    attended
}

/// Segments that each of `blocks` blocks computes side by side, to keep all threads busy: one where
/// there are many blocks, else no more than give each thread [`TASKS_PER_THREAD`].
fn segments_at_once(blocks: usize, threads: usize) -> usize {
    (TASKS_PER_THREAD * threads / blocks.max(1)).max(1)
}

/// Queries of some heads and some neighbouring tokens of one conversation.
struct Block<'q> {
    cache: &'q KvCache,
    layer: usize,
    /// Where the first token stands in its conversation.
    position: usize,
    heads: Range<usize>,
    /// Per head: tokens × kv_row.
    queries: Vec<&'q [f32]>,
    row: usize,
}

/// All queries in blocks; for each head, tokens come in order.
fn blocks<'q>(
    config: &Config,
    queries: &'q [Vec<f32>],
    turns: &'q [Turn<'_>],
    layer: usize,
) -> Vec<Block<'q>> {
    let row = config.kv_row();
    let mut blocks = Vec::new();
    let mut before = 0;
    for turn in turns {
        for first in (0..turn.tokens.len()).step_by(TOKENS_PER_BLOCK) {
            let last = turn.tokens.len().min(first + TOKENS_PER_BLOCK);
            let range = (before + first) * row..(before + last) * row;
            for head in (0..config.heads).step_by(HEADS_PER_BLOCK) {
                let heads = head..config.heads.min(head + HEADS_PER_BLOCK);
                blocks.push(Block {
                    cache: &*turn.cache,
                    layer,
                    position: turn.cache.len() + first,
                    queries: queries[heads.clone()]
                        .iter()
                        .map(|queries| &queries[range.clone()])
                        .collect(),
                    heads,
                    row,
                });
            }
        }
        before += turn.tokens.len();
    }
    blocks
}

impl Block<'_> {
    fn tokens(&self) -> usize {
        self.queries.first().map_or(0, |head| head.len() / self.row)
    }

    fn attend(&self, config: &Config, at_once: usize, progress: &Progress) -> Sums {
        let count = self.heads.len() * self.tokens();
        let segments = (self.position + self.tokens()).div_ceil(SEGMENT);
        let mut all = Sums::new(count, config.kv_lora);
        for first in (0..segments).step_by(at_once) {
            let parts: Vec<Sums> = (first..segments.min(first + at_once))
                .into_par_iter()
                .map(|segment| {
                    let mut sums = Sums::new(count, config.kv_lora);
                    self.add_segment(&mut sums, segment * SEGMENT, progress);
                    sums
                })
                .collect();
            parts.iter().for_each(|part| all.merge(part));
        }
        all
    }

    /// Adds the rows from `begin` to the end of its segment that the tokens see.
    fn add_segment(&self, sums: &mut Sums, begin: usize, progress: &Progress) {
        let kernels = quant::row_kernels();
        let tokens = self.tokens();
        let end = (self.position + tokens).min(begin + SEGMENT);
        let mut tile = vec![0.0; TILE * self.row];
        for first in (begin..end).step_by(TILE) {
            let rows = TILE.min(end - first);
            let tile = &mut tile[..rows * self.row];
            self.cache.read(self.layer, first, tile);
            for token in 0..tokens {
                let visible = (self.position + token + 1).saturating_sub(first).min(rows);
                let of_token = token * self.row..(token + 1) * self.row;
                let queries = self
                    .queries
                    .iter()
                    .map(|of_head| &of_head[of_token.clone()]);
                let queries: Vec<&[f32]> = queries.collect();
                let rows = &tile[..visible * self.row];
                sums.add(kernels, token * queries.len(), &queries, rows);
            }
            progress.touch();
        }
    }
}

/// Softmax-weighted sums of rows under way, one per query: the heads of the first token, then of the next.
struct Sums {
    /// Values of a sum: the beginning of a row.
    width: usize,
    /// Largest score so far; weights are relative to it.
    tops: Vec<f32>,
    /// Sum of the weights.
    weights: Vec<f32>,
    sums: Vec<f32>,
}

impl Sums {
    fn new(queries: usize, width: usize) -> Self {
        Self {
            width,
            tops: vec![f32::NEG_INFINITY; queries],
            weights: vec![0.0; queries],
            sums: vec![0.0; queries * width],
        }
    }

    /// Adds at most a tile of rows to the sums of `queries`, the first of which is query `at`.
    fn add(&mut self, kernels: &RowKernels, at: usize, queries: &[&[f32]], rows: &[f32]) {
        let row = queries.first().map_or(1, |q| q.len());
        let count = rows.len() / row;
        if count == 0 {
            return;
        }
        let mut scores = [0.0; HEADS_PER_BLOCK * TILE];
        let scores = &mut scores[..queries.len() * count];
        (kernels.dots)(queries, rows, scores);
        for (at, scores) in (at..).zip(scores.chunks_exact_mut(count)) {
            let top = scores.iter().copied().fold(self.tops[at], f32::max);
            self.raise(at, top);
            self.weights[at] += (kernels.exps)(scores, top);
        }
        let sums = &mut self.sums[at * self.width..(at + queries.len()) * self.width];
        (kernels.add_weighted)(sums, self.width, scores, rows, row);
    }

    /// Adds the sums that the same queries have over later rows.
    fn merge(&mut self, later: &Self) {
        for at in 0..self.tops.len() {
            // Rows that a token does not see yet have no sum.
            if later.weights[at] == 0.0 {
                continue;
            }
            let top = self.tops[at].max(later.tops[at]);
            self.raise(at, top);
            let scale = (later.tops[at] - top).exp();
            let range = at * self.width..(at + 1) * self.width;
            self.weights[at] += scale * later.weights[at];
            ops::add_scaled(&mut self.sums[range.clone()], scale, &later.sums[range]);
        }
    }

    /// Makes the weights of query `at` relative to `top`, which is no less than theirs.
    fn raise(&mut self, at: usize, top: f32) {
        if top > self.tops[at] {
            let shrink = (self.tops[at] - top).exp();
            self.weights[at] *= shrink;
            self.sums[at * self.width..(at + 1) * self.width]
                .iter_mut()
                .for_each(|sum| *sum *= shrink);
            self.tops[at] = top;
        }
    }

    /// queries × width.
    fn finish(mut self) -> Vec<f32> {
        for (sum, weight) in self.sums.chunks_exact_mut(self.width).zip(&self.weights) {
            let scale = weight.recip();
            sum.iter_mut().for_each(|sum| *sum *= scale);
        }
        self.sums
    }
}

#[cfg(test)]
mod tests;
