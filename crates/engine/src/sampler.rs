//! Logits to the next token. It must not know where logits come from or what tokens mean.

use std::collections::HashMap;

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::Sampling;

/// Chooses the tokens of one request. Steps, in this order: bias, penalties, temperature, top-k,
/// min-p, top-p, draw.
#[derive(Debug)]
pub(crate) struct Sampler {
    sampling: Sampling,
    rng: StdRng,
    /// Tokens of prompt and answer → times generated.
    seen: HashMap<u32, u32>,
}

/// A token that may be drawn, and its probability relative to the likeliest.
#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    weight: f32,
}

impl Sampler {
    pub(crate) fn new(sampling: Sampling, prompt: &[u32]) -> Self {
        let seed = sampling.seed.unwrap_or_else(|| rand::rng().next_u64());
        Self {
            sampling,
            rng: StdRng::seed_from_u64(seed),
            seen: prompt.iter().map(|id| (*id, 0)).collect(),
        }
    }

    /// The next token, or `None` when no logit is a number. `logits` is changed.
    pub(crate) fn sample(&mut self, logits: &mut [f32]) -> Option<u32> {
        self.adjust(logits);
        let (likeliest, top) = likeliest(logits)?;
        let id = if self.sampling.temperature > 0.0 {
            self.draw(logits, top)
        } else {
            likeliest
        };
        *self.seen.entry(id).or_default() += 1;
        Some(id)
    }

    /// Bias (added), then the penalties for tokens seen: repetition (arXiv 1909.05858) divides
    /// positive logits and multiplies negative ones, presence and frequency subtract, as OpenAI's
    /// reference describes them.
    fn adjust(&self, logits: &mut [f32]) {
        let Sampling {
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            ..
        } = self.sampling;
        for (id, bias) in &self.sampling.logit_bias {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit += bias;
            }
        }
        if (repetition_penalty, presence_penalty, frequency_penalty) == (1.0, 0.0, 0.0) {
            return;
        }
        for (id, times) in &self.seen {
            let Some(logit) = logits.get_mut(*id as usize) else {
                continue;
            };
            *logit = if *logit > 0.0 {
                *logit / repetition_penalty
            } else {
                *logit * repetition_penalty
            };
            if *times > 0 {
                *logit -= presence_penalty + frequency_penalty * *times as f32;
            }
        }
    }

    fn draw(&mut self, logits: &[f32], top: f32) -> u32 {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let mut candidates: Vec<Candidate> = (0..)
            .zip(logits)
            .map(|(id, logit)| Candidate {
                id,
                weight: ((logit - top) / temperature).exp(),
            })
            // A weight that is no number, or rounds to nothing, is never drawn.
            .filter(|candidate| candidate.weight > 0.0 && candidate.weight >= min_p)
            .collect();
        let descending =
            |a: &Candidate, b: &Candidate| b.weight.total_cmp(&a.weight).then(a.id.cmp(&b.id));
        let keep = top_k as usize;
        if (1..candidates.len()).contains(&keep) {
            candidates.select_nth_unstable_by(keep - 1, descending);
            candidates.truncate(keep);
        }
        if top_p < 1.0 {
            keep_nucleus(&mut candidates, top_p, descending);
        }

        let total: f64 = candidates
            .iter()
            .map(|candidate| f64::from(candidate.weight))
            .sum();
        let mut left = self.rng.random::<f64>() * total;
        // The likeliest has weight 1, so there is at least one candidate.
        let mut id = 0;
        for candidate in &candidates {
            id = candidate.id;
            left -= f64::from(candidate.weight);
            if left < 0.0 {
                break;
            }
        }
        id
    }
}

/// Keeps the likeliest candidates that together hold `top_p`, at least one (arXiv 1904.09751).
fn keep_nucleus(
    candidates: &mut Vec<Candidate>,
    top_p: f32,
    descending: impl Fn(&Candidate, &Candidate) -> std::cmp::Ordering,
) {
    let total: f64 = candidates
        .iter()
        .map(|candidate| f64::from(candidate.weight))
        .sum();
    let wanted = f64::from(top_p) * total;
    // Candidates below this hold less than 1 − top_p together, so none of them is in the nucleus:
    // most of a large vocabulary needs no sorting.
    let floor = (total - wanted) / candidates.len() as f64;
    candidates.retain(|candidate| f64::from(candidate.weight) >= floor);
    candidates.sort_unstable_by(&descending);
    let mut held = 0.0;
    let nucleus = candidates.iter().take_while(|candidate| {
        let more = held < wanted;
        held += f64::from(candidate.weight);
        more
    });
    let count = nucleus.count().max(1);
    candidates.truncate(count);
}

/// The highest logit, lowest id first; `None` when none is finite.
pub(crate) fn likeliest(logits: &[f32]) -> Option<(u32, f32)> {
    let finite = (0..)
        .zip(logits.iter().copied())
        .filter(|(_, logit)| logit.is_finite());
    finite.reduce(|best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// How often each token of three comes up in 2,000 draws.
    fn shares(sampling: &Sampling, prompt: &[u32], logits: [f32; 3]) -> [f32; 3] {
        let mut counts = [0.0; 3];
        for seed in 0..2000 {
            let sampling = Sampling {
                seed: Some(seed),
                ..sampling.clone()
            };
            let id = Sampler::new(sampling, prompt)
                .sample(&mut logits.clone())
                .unwrap();
            counts[id as usize] += 1.0 / 2000.0;
        }
        counts
    }

    fn check(sampling: &Sampling, prompt: &[u32], logits: [f32; 3], expected: [f32; 3]) {
        let shares = shares(sampling, prompt, logits);
        for (share, expected) in shares.iter().zip(expected) {
            assert!(
                (share - expected).abs() < 0.04,
                "{shares:?}, expected {expected:?}"
            );
        }
    }

    /// Probabilities 1/6, 2/6, 3/6.
    const LOGITS: [f32; 3] = [0.0, std::f32::consts::LN_2, 1.098_612_3];

    fn plain() -> Sampling {
        Sampling {
            temperature: 1.0,
            min_p: 0.0,
            ..Sampling::default()
        }
    }

    #[test]
    fn draws_by_probability() {
        check(&plain(), &[], LOGITS, [1.0 / 6.0, 2.0 / 6.0, 3.0 / 6.0]);
        // At temperature 1/2 probabilities are squared: 1, 4, 9 of 14.
        let cold = Sampling {
            temperature: 0.5,
            ..plain()
        };
        check(&cold, &[], LOGITS, [1.0 / 14.0, 4.0 / 14.0, 9.0 / 14.0]);
        check(&Sampling::greedy(), &[], LOGITS, [0.0, 0.0, 1.0]);
    }

    #[test]
    fn filters_cut_the_tail() {
        let two = [0.0, 0.4, 0.6];
        check(
            &Sampling {
                top_k: 2,
                ..plain()
            },
            &[],
            LOGITS,
            two,
        );
        check(
            &Sampling {
                top_k: 1,
                ..plain()
            },
            &[],
            LOGITS,
            [0.0, 0.0, 1.0],
        );
        check(
            &Sampling {
                top_p: 0.7,
                ..plain()
            },
            &[],
            LOGITS,
            two,
        );
        check(
            &Sampling {
                top_p: 0.5,
                ..plain()
            },
            &[],
            LOGITS,
            [0.0, 0.0, 1.0],
        );
        check(
            &Sampling {
                top_p: 0.0,
                ..plain()
            },
            &[],
            LOGITS,
            [0.0, 0.0, 1.0],
        );
        check(
            &Sampling {
                min_p: 0.5,
                ..plain()
            },
            &[],
            LOGITS,
            two,
        );
        check(
            &Sampling {
                min_p: 1.0,
                ..plain()
            },
            &[],
            LOGITS,
            [0.0, 0.0, 1.0],
        );
    }

    #[test]
    fn bias_and_penalties_move_logits() {
        let ban = Sampling {
            logit_bias: vec![(2, -100.0), (9, 5.0)],
            ..plain()
        };
        check(&ban, &[], LOGITS, [1.0 / 3.0, 2.0 / 3.0, 0.0]);
        // Presence and frequency count what was generated, not the prompt.
        let mut sampler = Sampler::new(
            Sampling {
                presence_penalty: 0.5,
                frequency_penalty: 0.25,
                ..Sampling::greedy()
            },
            &[2],
        );
        let mut adjusted = |expected: u32| {
            let mut logits = LOGITS;
            assert_eq!(sampler.sample(&mut logits), Some(expected));
            logits
        };
        assert_eq!(adjusted(2), LOGITS);
        assert!((adjusted(1)[2] - (LOGITS[2] - 0.75)).abs() < 1e-6);
        // Repetition counts the prompt too.
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Sampling::greedy()
        };
        let mut logits = [1.0, -1.0, 0.5];
        assert_eq!(Sampler::new(sampling, &[0, 1]).sample(&mut logits), Some(0));
        assert_eq!(logits, [0.5, -2.0, 0.5]);
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut sampler = Sampler::new(
                Sampling {
                    seed: Some(seed),
                    ..plain()
                },
                &[],
            );
            (0..50)
                .map(|_| sampler.sample(&mut LOGITS.clone()).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn broken_logits_are_never_chosen() {
        for sampling in [plain(), Sampling::greedy()] {
            let mut sampler = Sampler::new(sampling, &[]);
            assert_eq!(sampler.sample(&mut [f32::NAN; 3]), None);
            let mut logits = [f32::NAN, 0.0, f32::NEG_INFINITY];
            assert_eq!(sampler.sample(&mut logits), Some(1));
        }
    }
}
