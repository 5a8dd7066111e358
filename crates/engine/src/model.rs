//! The forward pass of a `deepseek2` model, top to bottom: embedding, layers of attention and
//! feed-forward each added to the stream, norm, logits. It must not know requests or text.

mod layers;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rayon::ThreadPool;
use sizing::kv_cache;

use crate::{
    Progress,
    attention::Attention,
    config::Config,
    kv_cache::{CacheType, KvCache},
    moe::{Dense, Moe},
    ops::{add_scaled, matmul, rms_norm},
    rope::{Angles, Rope},
    weights::Matrix,
};

/// Most tokens that go through the layers together: enough to use each weight row many times, few
/// enough that a step lasts seconds on the largest model.
pub(crate) const BATCH: usize = 256;

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

/// Whose logits a forward pass returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Logits {
    /// Of the last token: vocab values.
    Last,
    /// Of the token at this place and all after it: a row of vocab values each.
    From(usize),
}

impl Model {
    /// Logits after `tokens`, which follow those in `cache` and join them. There must be at least
    /// one token, each below the vocabulary's size, and room for all in the cache.
    pub(crate) fn forward(&self, tokens: &[u32], cache: &mut KvCache, logits: Logits) -> Vec<f32> {
        self.threads
            .install(|| self.layers_and_logits(tokens, cache, logits))
    }

    fn layers_and_logits(&self, tokens: &[u32], cache: &mut KvCache, logits: Logits) -> Vec<f32> {
        let Config {
            hidden, rms_eps, ..
        } = self.config;
        let progress = &*self.progress;
        let angles: Vec<Angles> = (0..tokens.len())
            .map(|token| self.rope.angles(cache.len() + token))
            .collect();

        // n × hidden, the stream that every layer adds to.
        let mut x = vec![0.0; tokens.len() * hidden];
        for (token, x) in tokens.iter().zip(x.chunks_exact_mut(hidden)) {
            self.embedding.view().decode_row(*token as usize, x);
        }

        for (at, layer) in self.layers.iter().enumerate() {
            let normed = rms_norm(&x, &layer.attention_norm, rms_eps);
            let attended =
                layer
                    .attention
                    .forward(&self.config, &normed, &angles, cache, at, progress);
            add_scaled(&mut x, 1.0, &attended);

            let normed = rms_norm(&x, &layer.ffn_norm, rms_eps);
            let answered = match &layer.ffn {
                Ffn::Dense(dense) => dense.forward(&normed, hidden, progress),
                Ffn::Experts(experts) => experts.forward(&normed, hidden, progress),
            };
            add_scaled(&mut x, 1.0, &answered);
        }
        cache.advance(tokens.len());

        let wanted = match logits {
            Logits::Last => &x[x.len() - hidden..],
            Logits::From(first) => &x[(first * hidden).min(x.len())..],
        };
        matmul(
            self.output.view(),
            &rms_norm(wanted, &self.output_norm, rms_eps),
            progress,
        )
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
    pub(crate) fn new_cache(&self, capacity: usize, kind: CacheType) -> KvCache {
        KvCache::new(&self.config, capacity, kind)
    }

    /// Bytes of such a memory as it is served with, by the formula that plans use.
    pub(crate) fn cache_bytes(&self, capacity: u32) -> u64 {
        let hyper = self.config.hyper(self.vocab());
        kv_cache::bytes(&hyper, u64::from(capacity), kv_cache::BYTES_PER_VALUE)
    }
}
