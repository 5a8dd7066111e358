//! The layer of experts: the router chooses some for each token (DeepSeek-V3, arXiv 2412.19437,
//! section 2.1.2), the shared expert answers always. It must not know the inside of an expert.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    Progress,
    config::{Experts, Gating},
    ffn::{self, Work},
    ops::{matmul, sigmoid, softmax},
    weights::{Matrix, Stack, View},
};

/// Weights of one layer's experts.
pub(crate) struct Moe {
    pub(crate) config: Experts,
    /// hidden → experts.
    pub(crate) router: Matrix,
    /// Corrects which experts are chosen, not how much they count.
    pub(crate) bias: Vec<f32>,
    pub(crate) gate: Stack,
    pub(crate) up: Stack,
    pub(crate) down: Stack,
    pub(crate) shared: Option<Dense>,
    /// The experts are not all in memory: those that are chosen are asked for before any of them is computed.
    pub(crate) on_demand: bool,
    /// Which experts any token was ever sent to.
    pub(crate) met: Vec<AtomicBool>,
}

/// One network for all tokens: a dense layer, or the shared experts fused into one.
pub(crate) struct Dense {
    pub(crate) gate: Matrix,
    pub(crate) up: Matrix,
    pub(crate) down: Matrix,
}

impl Dense {
    /// n × hidden in and out.
    pub(crate) fn forward(&self, x: &[f32], hidden: usize, progress: &Progress) -> Vec<f32> {
        ffn::forward(&[self.work(x.len() / hidden)], x, hidden, progress)
    }

    fn work(&self, tokens: usize) -> Work<'_> {
        Work {
            gate: self.gate.view(),
            up: self.up.view(),
            down: self.down.view(),
            tokens: (0..tokens).map(|token| (token, 1.0)).collect(),
        }
    }
}

impl Moe {
    /// n × hidden in and out.
    pub(crate) fn forward(&self, x: &[f32], hidden: usize, progress: &Progress) -> Vec<f32> {
        // Experts in order of index, whatever order the tokens chose them in: the order of the sum.
        let mut work: Vec<Work<'_>> = (0..self.config.count)
            .map(|expert| Work {
                gate: self.gate.view(expert),
                up: self.up.view(expert),
                down: self.down.view(expert),
                tokens: Vec::new(),
            })
            .collect();
        let chosen = route(&self.config, self.router.view(), &self.bias, x, progress);
        for (token, chosen) in chosen.iter().enumerate() {
            for (expert, weight) in chosen {
                work[*expert].tokens.push((token, *weight));
                self.met[*expert].store(true, Ordering::Relaxed);
            }
        }
        if self.on_demand {
            for (expert, work) in work.iter().enumerate() {
                if !work.tokens.is_empty() {
                    for stack in [&self.gate, &self.up, &self.down] {
                        stack.request(expert);
                    }
                }
            }
        }
        work.retain(|work| !work.tokens.is_empty());
        work.extend(
            self.shared
                .as_ref()
                .map(|shared| shared.work(x.len() / hidden)),
        );
        ffn::forward(&work, x, hidden, progress)
    }
}

impl Moe {
    /// Experts that any token was sent to, if they are no more than one token's: then the router
    /// does not look at its input, or has seen but one token.
    pub(crate) fn same_for_all(&self) -> Option<usize> {
        let met = self
            .met
            .iter()
            .filter(|met| met.load(Ordering::Relaxed))
            .count();
        (met <= self.config.used && self.config.used < self.config.count).then_some(met)
    }
}

/// For each token, the chosen experts and their weights.
fn route(
    config: &Experts,
    router: View<'_>,
    bias: &[f32],
    x: &[f32],
    progress: &Progress,
) -> Vec<Vec<(usize, f32)>> {
    let mut logits = matmul(router, x, progress);
    logits
        .chunks_exact_mut(config.count)
        .map(|logits| choose(config, logits, bias))
        .collect()
}

/// Turns logits into probabilities, takes the likeliest after correction, weighs them uncorrected.
fn choose(config: &Experts, logits: &mut [f32], bias: &[f32]) -> Vec<(usize, f32)> {
    match config.gating {
        Gating::Softmax => softmax(logits),
        Gating::Sigmoid => logits.iter_mut().for_each(|logit| *logit = sigmoid(*logit)),
    }
    let probabilities = &*logits;
    let mut order: Vec<usize> = (0..config.count).collect();
    let corrected = |expert: usize| probabilities[expert] + bias[expert];
    // Ties go to the lower index.
    order.sort_by(|a, b| corrected(*b).total_cmp(&corrected(*a)).then(a.cmp(b)));
    order.truncate(config.used);

    let sum: f32 = order.iter().map(|expert| probabilities[*expert]).sum();
    // The floor of the sum is the smallest normal f16, as in the models' reference code.
    let divisor = if config.normalise {
        sum.max(6.103_515_6e-5)
    } else {
        1.0
    };
    order
        .into_iter()
        .map(|expert| (expert, probabilities[expert] / divisor * config.scale))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn experts(gating: Gating, normalise: bool) -> Experts {
        Experts {
            count: 4,
            used: 2,
            shared: 0,
            ff: 1,
            scale: 2.0,
            normalise,
            gating,
        }
    }

    #[test]
    fn the_bias_chooses_but_does_not_weigh() {
        let mut logits = [0.0, 0.0, 3.0, -3.0];
        let chosen = choose(
            &experts(Gating::Sigmoid, true),
            &mut logits,
            &[0.0, 0.0, -9.0, 9.0],
        );
        assert_eq!(
            chosen.iter().map(|(expert, _)| *expert).collect::<Vec<_>>(),
            [3, 0]
        );
        let (a, b) = (sigmoid(-3.0), 0.5);
        assert!((chosen[0].1 - 2.0 * a / (a + b)).abs() < 1e-6);
        assert!((chosen[1].1 - 2.0 * b / (a + b)).abs() < 1e-6);
    }

    #[test]
    fn softmax_without_norm_keeps_probabilities() {
        let mut logits = [0.0, f32::ln(2.0), f32::ln(4.0), 0.0];
        let chosen = choose(&experts(Gating::Softmax, false), &mut logits, &[0.0; 4]);
        assert_eq!(
            chosen.iter().map(|(expert, _)| *expert).collect::<Vec<_>>(),
            [2, 1]
        );
        assert!((chosen[0].1 - 2.0 * 0.5).abs() < 1e-6);
        assert!((chosen[1].1 - 2.0 * 0.25).abs() < 1e-6);
    }
}
