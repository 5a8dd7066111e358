//! The forward pass of a `deepseek2` model, top to bottom: embedding, layers of attention and
//! feed-forward each added to the stream, norm, logits. It must not know requests or text.

mod layers;
#[cfg(test)]
mod llama_cpp;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rayon::ThreadPool;
use sizing::{CacheType, kv_cache};

use crate::{
    Error, Progress,
    attention::Attention,
    config::Config,
    kv_cache::KvCache,
    moe::{Dense, Moe},
    ops::{add_scaled, matmul, rms_norm},
    rope::{Angles, Rope},
    weights::Matrix,
};

/// Most tokens that go through the layers together: enough to use each weight row many times, few
/// enough that a step lasts seconds on the largest model.
pub(crate) const BATCH: usize = 512;

/// A loaded model.
pub(crate) struct Model {
    config: Config,
    /// vocab × hidden.
    embedding: Matrix,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    /// hidden → vocab.
    output: Matrix,
    rope: Rope,
    threads: ThreadPool,
    /// Touched by every task of a pass: where weights come from disk, one layer may take minutes.
    progress: Arc<Progress>,
}

struct Layer {
    attention_norm: Vec<f32>,
    attention: Attention,
    ffn_norm: Vec<f32>,
    ffn: Ffn,
}

enum Ffn {
    Dense(Dense),
    Experts(Box<Moe>),
}

/// Tokens of one conversation that go through the layers in a pass: they follow those in its cache
/// and join them.
pub(crate) struct Turn<'t> {
    /// Each below the vocabulary's size.
    pub(crate) tokens: &'t [u32],
    /// Has room for the tokens.
    pub(crate) cache: &'t mut KvCache,
    pub(crate) logits: Logits,
}

/// Whose logits a forward pass returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logits {
    /// Nobody's: more of the prompt follows.
    None,
    /// Of the last token: vocab values.
    Last,
    /// Of the token at this place and all after it: a row of vocab values each.
    From(usize),
}

impl Model {
    /// Logits after `tokens`, which follow those in `cache` and join them: a pass of one turn.
    pub(crate) fn forward(&self, tokens: &[u32], cache: &mut KvCache, logits: Logits) -> Vec<f32> {
        let turn = Turn {
            tokens,
            cache,
            logits,
        };
        self.forward_all(&mut [turn]).pop().unwrap_or_default()
    }

    /// The logits that each turn asks for, from one pass over the weights for all of them. What a turn
    /// gets does not depend on the others, to the last bit.
    pub(crate) fn forward_all(&self, turns: &mut [Turn<'_>]) -> Vec<Vec<f32>> {
        self.threads.install(|| self.layers_and_logits(turns))
    }

    fn layers_and_logits(&self, turns: &mut [Turn<'_>]) -> Vec<Vec<f32>> {
        let Config {
            hidden, rms_eps, ..
        } = self.config;
        let progress = &*self.progress;
        let positions = turns.iter().flat_map(|turn| {
            let start = turn.cache.len();
            start..start + turn.tokens.len()
        });
        let angles: Vec<Angles> = positions.map(|at| self.rope.angles(at)).collect();

        // n × hidden, the stream that every layer adds to; the tokens of all turns in order.
        let mut x = vec![0.0; angles.len() * hidden];
        let tokens = turns.iter().flat_map(|turn| turn.tokens);
        for (token, x) in tokens.zip(x.chunks_exact_mut(hidden)) {
            self.embedding.view().decode_row(*token as usize, x);
        }

        for (at, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.attention_norm, rms_eps);
            let attended =
                layer
                    .attention
                    .forward(&self.config, &normed, &angles, turns, at, progress);
            add_scaled(&mut x, 1.0, &attended);

            let normed = rms_norm(&x, &layer.ffn_norm, rms_eps);
            let answered = match &layer.ffn {
                Ffn::Dense(dense) => dense.forward(&normed, hidden, progress),
                Ffn::Experts(experts) => experts.forward(&normed, hidden, progress),
            };
            add_scaled(&mut x, 1.0, &answered);
        }

        // Of each turn the rows of the stream whose logits it wants.
        let mut wanted = Vec::new();
        let mut counts = Vec::with_capacity(turns.len());
        let mut rest = x.as_slice();
        for turn in turns {
            let (own, others) = rest.split_at(turn.tokens.len() * hidden);
            rest = others;
            let rows: &[f32] = match turn.logits {
                Logits::None => &[],
                Logits::Last => &own[own.len() - hidden..],
                Logits::From(first) => &own[(first * hidden).min(own.len())..],
            };
            wanted.extend_from_slice(rows);
            counts.push(rows.len() / hidden);
            turn.cache.advance(turn.tokens.len());
        }
        let normed = rms_norm(&wanted, &self.output_norm, rms_eps);
        let mut logits = matmul(self.output.view(), &normed, progress).into_iter();
        counts
            .into_iter()
            .map(|count| logits.by_ref().take(count * self.vocab()).collect())
            .collect()
    }

    /// From now on, experts are asked for when tokens are sent to them.
    pub(crate) fn read_experts_on_demand(&mut self) {
        for layer in &mut self.layers {
            if let Ffn::Experts(experts) = &mut layer.ffn {
                experts.on_demand = true;
            }
        }
    }

    /// The first layer that has sent every token so far to the same experts, and how many those are.
    pub(crate) fn dead_router(&self) -> Option<(usize, usize)> {
        self.layers
            .iter()
            .enumerate()
            .find_map(|(at, layer)| match &layer.ffn {
                Ffn::Dense(_) => None,
                Ffn::Experts(experts) => experts.same_for_all().map(|chosen| (at, chosen)),
            })
    }

    /// Tokens in the vocabulary.
    pub(crate) fn vocab(&self) -> usize {
        self.embedding.view().rows()
    }

    /// Tokens of context the model was made for.
    pub(crate) fn trained_context(&self) -> u32 {
        self.config.context
    }

    /// Memory for one conversation.
    ///
    /// # Errors
    /// [`Error::Options`] when the model's rows cannot be kept as `kind`.
    pub(crate) fn new_cache(&self, capacity: usize, kind: CacheType) -> Result<KvCache, Error> {
        KvCache::new(&self.config, capacity, kind)
    }

    /// Bytes of such a memory, by the formula that plans use.
    pub(crate) fn cache_bytes(&self, capacity: u32, kind: CacheType) -> u64 {
        let hyper = self.config.hyper(self.vocab());
        kv_cache::bytes(&hyper, u64::from(capacity), kind)
    }
}
