//! Bytes of a model's weights by how they are used: read for every token, looked up by row, or routed. Measured from a
//! tensor table, or estimated from the catalogue. It must not know hardware, contexts or KV caches.

use crate::facts::{Class, ExpertSize};
use crate::{Facts, Model, Quant};

/// Bytes of weights, split by use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weights {
    /// Bytes of all files.
    pub total: u64,
    /// Read for every token: belongs in VRAM.
    pub always_active: u64,
    /// Token embedding: a row per token, stays in RAM.
    pub embedding: u64,
    /// Routed experts of all layers.
    pub routed: u64,
    /// The same by size of one expert.
    pub expert_sizes: Vec<ExpertSize>,
    /// Routed experts that one token reads, on average over layers of different sizes.
    pub per_token: u64,
}

/// Bits per weight, in hundredths, assumed of the always-active part when only the size of a quant is known: dynamic
/// quants keep attention and shared experts at 4 to 8 bits whatever the experts have (UD-IQ3_XXS: 6.95 GB measured for
/// 10.55 B weights, 5.3 bits).
const ALWAYS_ACTIVE_BITS: u64 = 550;
/// The same for the token embedding (Q4_K in UD-IQ3_XXS).
const EMBEDDING_BITS: u64 = 450;

impl Weights {
    /// Sums of a tensor-class histogram.
    pub fn from_facts(facts: &Facts) -> Weights {
        let sum = |wanted: fn(Class) -> bool| {
            facts
                .classes
                .iter()
                .filter(|row| wanted(row.class))
                .fold(0u64, |sum, row| sum.saturating_add(row.bytes))
        };
        let routed = sum(|class| class == Class::Expert);
        Weights {
            total: facts.bytes,
            always_active: sum(|class| !matches!(class, Class::Expert | Class::Embedding)),
            embedding: sum(|class| class == Class::Embedding),
            routed,
            expert_sizes: facts.expert_sizes.clone(),
            per_token: share(routed, facts.hyper.experts_used, facts.hyper.experts),
        }
    }

    /// The guide's size divided by parameter counts; for a model outside the guide, the guide's bits per weight.
    pub fn from_catalogue(model: &Model, quant: &Quant) -> Weights {
        let parameters = model.parameters;
        let total = if model.in_guide {
            quant.size_bytes
        } else {
            scale(quant.size_bytes, parameters.total(), guide_parameters())
        };
        let bits = scale(total, 800, parameters.total().max(1));
        let always_active = scale(parameters.always_active, ALWAYS_ACTIVE_BITS.max(bits), 800);
        let embedding = scale(parameters.embedding, EMBEDDING_BITS, 800);
        let routed = total
            .saturating_sub(always_active)
            .saturating_sub(embedding);
        let count = model
            .hyper
            .expert_layers()
            .saturating_mul(u64::from(model.hyper.experts));
        Weights {
            total,
            always_active,
            embedding,
            routed,
            expert_sizes: vec![ExpertSize {
                bytes: routed / count.max(1),
                count,
            }],
            per_token: share(routed, model.hyper.experts_used, model.hyper.experts),
        }
    }
}

/// Parameters of the model that the guide's sizes belong to.
fn guide_parameters() -> u64 {
    Model::all()
        .iter()
        .find(|model| model.in_guide)
        .map_or(1, |model| model.parameters.total())
}

/// `bytes` x `used` / `of`, rounded up.
fn share(bytes: u64, used: u32, of: u32) -> u64 {
    let product = u128::from(bytes) * u128::from(used.min(of));
    u64::try_from(product.div_ceil(u128::from(of.max(1)))).unwrap_or(u64::MAX)
}

/// `value` x `numerator` / `denominator` without overflow in between.
fn scale(value: u64, numerator: u64, denominator: u64) -> u64 {
    let product = u128::from(value) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(product).unwrap_or(u64::MAX)
}
