//! Rotary position embedding with YaRN. It must not know attention.

use std::f64::consts::PI;

use crate::config::{RopeConfig, Yarn};

/// Angles per position of each pair of values.
#[derive(Debug)]
pub(crate) struct Rope {
    frequencies: Vec<f64>,
}

impl Rope {
    /// Frequency of pair i of `dim`/2: base^(−2i/dim) (arXiv 2104.09864). YaRN (arXiv 2309.00071,
    /// section 3.2) divides by `factor` the slow ones, leaves the fast ones, and blends between the
    /// pairs that turn `beta_fast` and `beta_slow` times over the original context.
    pub(crate) fn new(config: &RopeConfig, dim: usize) -> Self {
        let base = f64::from(config.base);
        let frequencies = (0..dim / 2).map(|pair| {
            let frequency = base.powf(-2.0 * pair as f64 / dim as f64);
            let Some(yarn) = &config.yarn else {
                return frequency;
            };
            let interpolated = ramp(yarn, base, dim, pair);
            frequency * (1.0 - interpolated) + frequency / f64::from(yarn.factor) * interpolated
        });
        Self {
            frequencies: frequencies.collect(),
        }
    }

    /// Sines and cosines at a position, the same for all layers and heads.
    pub(crate) fn angles(&self, position: usize) -> Angles {
        let angles = self.frequencies.iter().map(|frequency| {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            (sin as f32, cos as f32)
        });
        Angles(angles.collect())
    }
}

/// A rotation: (sine, cosine) per pair of values.
#[derive(Debug)]
pub(crate) struct Angles(Vec<(f32, f32)>);

impl Angles {
    /// Turns adjacent pairs of `x`. YaRN's magnitude cancels out of the rotation when mscale =
    /// mscale_all_dim, as in all Kimi models; what remains of it is in the attention scale.
    pub(crate) fn turn(&self, x: &mut [f32]) {
        for ([a, b], (sin, cos)) in x.as_chunks_mut::<2>().0.iter_mut().zip(&self.0) {
            (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
        }
    }
}

/// 0 keeps the frequency of a pair, 1 divides it.
fn ramp(yarn: &Yarn, base: f64, dim: usize, pair: usize) -> f64 {
    let context = f64::from(yarn.original_context);
    // The pair that turns `rotations` times over the original context.
    let pair_of = |rotations: f32| {
        dim as f64 * (context / (2.0 * PI * f64::from(rotations))).ln() / (2.0 * base.ln())
    };
    let low = pair_of(yarn.beta_fast).floor().max(0.0);
    let high = pair_of(yarn.beta_slow).ceil().min(dim as f64 - 1.0);
    // With equal ends the ramp is a step.
    let width = (high - low).max(0.001);
    ((pair as f64 - low) / width).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kimi_k2(beta_fast: f32) -> RopeConfig {
        let yarn = Yarn {
            factor: 32.0,
            original_context: 4096,
            beta_fast,
            beta_slow: 1.0,
            log_multiplier: 0.1,
        };
        RopeConfig {
            base: 50_000.0,
            yarn: Some(yarn),
        }
    }

    /// Pairs whose frequency is neither kept nor divided whole, first and last.
    fn blended(beta_fast: f32) -> (usize, usize) {
        let plain = Rope::new(
            &RopeConfig {
                base: 50_000.0,
                yarn: None,
            },
            64,
        );
        let yarn = Rope::new(&kimi_k2(beta_fast), 64);
        let ratio = |pair: usize| plain.frequencies[pair] / yarn.frequencies[pair];
        let kept = (0..32)
            .take_while(|pair| (ratio(*pair) - 1.0).abs() < 1e-9)
            .count();
        let divided = (0..32)
            .rev()
            .take_while(|pair| (ratio(*pair) - 32.0).abs() < 1e-9)
            .count();
        (kept, 32 - divided)
    }

    #[test]
    fn the_ramp_of_kimi_k2() {
        // beta_fast 1: pairs up to 19 are kept, from 20 on divided. beta_fast 32: between 8 and 20.
        assert_eq!(blended(1.0), (20, 20));
        assert_eq!(blended(32.0), (9, 20));
    }

    #[test]
    fn turning_keeps_length_and_is_relative() {
        let rope = Rope::new(&kimi_k2(1.0), 64);
        let vector = |seed: f32| {
            (0..64)
                .map(|i| (seed * i as f32).sin())
                .collect::<Vec<f32>>()
        };
        let score = |q: usize, k: usize| {
            let (mut a, mut b) = (vector(0.7), vector(1.3));
            rope.angles(q).turn(&mut a);
            rope.angles(k).turn(&mut b);
            a.iter().zip(&b).map(|(a, b)| a * b).sum::<f32>()
        };
        assert!((score(5, 3) - score(105, 103)).abs() < 1e-4);
        assert!((score(0, 0) - score(4000, 4000)).abs() < 1e-4);
    }
}
