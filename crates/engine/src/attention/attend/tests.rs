//! Tiled attention against the plain formula, and against itself in other company.
#![allow(clippy::unwrap_used)]

use sizing::CacheType;

use super::*;
use crate::{
    model::Logits,
    testing::{noise, small_config},
};

/// Layer that the tests attend in.
const LAYER: usize = 1;

/// A conversation of `before` tokens whose next `tokens` are written but not yet counted, and the
/// queries of these: per head tokens × kv_row.
struct Case {
    cache: KvCache,
    tokens: Vec<u32>,
    queries: Vec<Vec<f32>>,
}

impl Case {
    fn new(config: &Config, kind: CacheType, before: usize, tokens: usize, seed: u32) -> Self {
        let row = config.kv_row();
        let mut cache = KvCache::new(config, before + tokens, kind).unwrap();
        cache.write(LAYER, 0, &noise((before + tokens) * row, seed));
        cache.advance(before);
        let queries = (0..config.heads as u32)
            .map(|head| noise(tokens * row, seed + 100 + head))
            .collect();
        Self {
            cache,
            tokens: vec![0; tokens],
            queries,
        }
    }

    fn turn(&mut self) -> Turn<'_> {
        Turn {
            tokens: &self.tokens,
            cache: &mut self.cache,
            logits: Logits::None,
        }
    }

    /// Per head: tokens × kv_lora.
    fn attend(&mut self, config: &Config) -> Vec<Vec<f32>> {
        let queries = self.queries.clone();
        attend(
            config,
            &queries,
            &[self.turn()],
            LAYER,
            &Progress::default(),
        )
    }

    /// The formula over all rows at once, in f64.
    fn plain(&self, config: &Config, head: usize, token: usize) -> Vec<f64> {
        let row = config.kv_row();
        let visible = self.cache.len() + token + 1;
        let mut rows = vec![0.0; visible * row];
        self.cache.read(LAYER, 0, &mut rows);
        let q = &self.queries[head][token * row..(token + 1) * row];
        let scores: Vec<f64> = rows
            .chunks_exact(row)
            .map(|row| {
                q.iter()
                    .zip(row)
                    .map(|(q, k)| f64::from(*q) * f64::from(*k))
                    .sum()
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
        let total: f64 = weights.iter().sum();
        (0..config.kv_lora)
            .map(|at| {
                let values = rows.iter().skip(at).step_by(row);
                let terms = values.zip(&weights).map(|(v, w)| f64::from(*v) * w);
                terms.sum::<f64>() / total
            })
            .collect()
    }
}

/// Rows hold values up to 1, so a weighted mean is at most 1; tiles cost at most 1e-5 of that.
const BOUND: f64 = 1e-5;

#[test]
fn tiles_give_what_the_plain_formula_gives() {
    let config = small_config();
    for kind in CacheType::ALL {
        // Contexts that end before, at and behind the ends of tiles and segments.
        for (before, tokens) in [(0, 1), (0, 17), (63, 1), (63, 2), (1023, 3), (2500, 40)] {
            let mut case = Case::new(&config, kind, before, tokens, 7);
            let attended = case.attend(&config);
            for head in [0, config.heads - 1] {
                for token in [0, tokens / 2, tokens - 1] {
                    let found = &attended[head][token * config.kv_lora..][..config.kv_lora];
                    let worst = found
                        .iter()
                        .zip(case.plain(&config, head, token))
                        .map(|(found, plain)| (f64::from(*found) - plain).abs())
                        .fold(0.0, f64::max);
                    assert!(worst < BOUND, "{kind} {before}+{tokens}, {head}: {worst}");
                }
            }
        }
    }
}

#[test]
fn a_context_of_128k_tokens_gives_what_the_plain_formula_gives() {
    let config = Config {
        heads: 2,
        ..small_config()
    };
    for kind in [CacheType::F16, CacheType::Q8_0] {
        let mut case = Case::new(&config, kind, 131_071, 1, 3);
        let attended = case.attend(&config);
        let worst = attended[1]
            .iter()
            .zip(case.plain(&config, 1, 0))
            .map(|(found, plain)| (f64::from(*found) - plain).abs())
            .fold(0.0, f64::max);
        assert!(worst < BOUND, "{kind}: {worst}");
    }
}

#[test]
fn company_and_threads_never_show() {
    let config = small_config();
    let lengths = [(0, 5), (1500, 1), (3000, 33), (64, 1)];
    let cases = || {
        lengths
            .iter()
            .zip(1u32..)
            .map(|((before, tokens), seed)| {
                Case::new(&config, CacheType::F16, *before, *tokens, seed * 1000)
            })
            .collect::<Vec<_>>()
    };
    let alone: Vec<Vec<Vec<f32>>> = cases()
        .iter_mut()
        .map(|case| case.attend(&config))
        .collect();

    for threads in [1, 3, 16] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let mut cases = cases();
        // Per head the queries of all turns in order.
        let queries: Vec<Vec<f32>> = (0..config.heads)
            .map(|head| {
                cases
                    .iter()
                    .flat_map(|case| case.queries[head].clone())
                    .collect()
            })
            .collect();
        let turns: Vec<Turn<'_>> = cases.iter_mut().map(Case::turn).collect();
        let together = pool
            .unwrap()
            .install(|| attend(&config, &queries, &turns, LAYER, &Progress::default()));
        for head in 0..config.heads {
            let expected: Vec<f32> = alone.iter().flat_map(|case| case[head].clone()).collect();
            assert!(together[head] == expected, "{threads} threads, head {head}");
        }
    }
}

#[test]
fn a_token_does_not_see_those_after_it() {
    let config = small_config();
    let mut whole = Case::new(&config, CacheType::F32, 1000, 50, 5);
    let mut first = Case::new(&config, CacheType::F32, 1000, 50, 5);
    first.tokens.truncate(30);
    for head in &mut first.queries {
        head.truncate(30 * config.kv_row());
    }
    let (whole, first) = (whole.attend(&config), first.attend(&config));
    for (whole, first) in whole.iter().zip(&first) {
        assert!(whole[..first.len()] == first[..]);
    }
}

#[test]
fn sums_in_flight_are_bounded_whatever_the_context() {
    for threads in [1, 2, 64] {
        for blocks in [1, 2, 8, 128, 100_000] {
            let at_once = segments_at_once(blocks, threads);
            assert!(at_once >= 1 && blocks * at_once <= blocks.max(TASKS_PER_THREAD * threads));
        }
    }
}
