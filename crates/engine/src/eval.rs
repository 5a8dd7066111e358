//! Logits beside a reference's: the texts, tokens and likeliest next tokens of another evaluation of
//! the same model, and how far this engine's are from them. It must not know who made the reference.

use std::{collections::HashSet, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    Error, Options, Progress,
    load::{Loaded, load},
    model::{BATCH, Logits},
    perplexity::windows,
    sampler::likeliest,
};

/// What another evaluation found for one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// What to call the text.
    pub name: String,
    /// The text, special tokens by their names.
    pub text: String,
    /// Its tokens.
    pub ids: Vec<u32>,
    /// What follows some of them.
    pub positions: Vec<Position>,
}

/// What may follow one token of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// Index of the token.
    pub pos: usize,
    /// (token, logit) of the likeliest next tokens, highest first.
    pub top: Vec<(u32, f32)>,
    /// ln Σ exp of all logits, which makes probabilities of logits.
    pub logsumexp: f32,
}

/// How far logits are from a reference's.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Distance {
    /// Positions compared.
    pub positions: u64,
    /// Largest difference of a logit among the reference's likeliest.
    pub logit: f32,
    /// Mean KL divergence of the reference's distribution from ours, in nats. Tokens beyond the
    /// reference's likeliest count as one.
    pub mean_divergence: f64,
    /// The largest of one position.
    pub largest_divergence: f64,
    /// Positions at which the same token is likeliest.
    pub same_top: u64,
    /// How much less likely than its best the reference finds the worst of the other tokens, in logits;
    /// infinite for one that it does not list.
    pub given_up: f32,
}

/// One text of a reference, judged.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The text's name.
    pub name: String,
    /// Whether this engine makes the same tokens of the text.
    pub tokenized_alike: bool,
    /// How far the logits are.
    pub distance: Distance,
}

/// Loads a model and judges it by `references`.
///
/// # Errors
/// Those of loading, and [`Error::Text`] for a reference of another vocabulary or out of order.
pub fn evaluate(
    options: &Options,
    references: &[Reference],
    progress: &Arc<Progress>,
) -> Result<Vec<Judged>, Error> {
    let loaded = load(options, progress)?;
    references
        .iter()
        .map(|reference| {
            Ok(Judged {
                name: reference.name.clone(),
                tokenized_alike: loaded.tokenizer.encode_with_special(&reference.text)
                    == reference.ids,
                distance: distance(&loaded, reference)?,
            })
        })
        .collect()
}

/// Loads a model and makes a reference of it: at most `chunks` windows of `context` tokens of `text`,
/// in each every `every`-th token of the second half with the `top` likeliest next tokens.
///
/// # Errors
/// Those of [`crate::perplexity()`].
pub fn reference(
    options: &Options,
    text: &str,
    window: Window,
    progress: &Arc<Progress>,
) -> Result<Vec<Reference>, Error> {
    let loaded = load(options, progress)?;
    let every = window.every.max(1);
    let windows = windows(&loaded, text, window.context, window.chunks)?;
    let vocab = loaded.model.vocab();
    windows
        .into_iter()
        .enumerate()
        .map(|(at, ids)| {
            let wanted = (ids.len() / 2..ids.len()).step_by(every);
            let mut positions = Vec::new();
            each_position(&loaded, &ids, |pos, logits| {
                if wanted.clone().any(|wanted| wanted == pos) {
                    positions.push(Position::of(pos, logits, window.top.min(vocab)));
                }
            })?;
            Ok(Reference {
                name: format!("window {at}"),
                text: loaded.tokenizer.decode(&ids),
                ids,
                positions,
            })
        })
        .collect()
}

/// Which positions of a text a reference is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Tokens per window.
    pub context: u32,
    /// Windows at most; all without it.
    pub chunks: Option<u32>,
    /// Of the second half of each window every how manyeth token.
    pub every: usize,
    /// Likeliest next tokens of each.
    pub top: usize,
}

impl Position {
    fn of(pos: usize, logits: &[f32], top: usize) -> Self {
        let mut order: Vec<u32> = (0u32..).take(logits.len()).collect();
        let logit = |id: &u32| logits[*id as usize];
        order.sort_by(|a, b| logit(b).total_cmp(&logit(a)).then(a.cmp(b)));
        order.truncate(top);
        Self {
            pos,
            top: order.iter().map(|id| (*id, logit(id))).collect(),
            logsumexp: log_sum_exp(logits) as f32,
        }
    }
}

/// Computes a reference's text and measures.
pub(crate) fn distance(loaded: &Loaded, reference: &Reference) -> Result<Distance, Error> {
    check(
        reference,
        loaded.model.vocab(),
        loaded.model.trained_context(),
    )?;
    let mut distance = Distance::default();
    let mut wanted = reference.positions.iter().peekable();
    each_position(loaded, &reference.ids, |pos, logits| {
        if let Some(position) = wanted.next_if(|position| position.pos == pos) {
            distance.add(logits, position);
        }
    })?;
    distance.mean_divergence /= distance.positions.max(1) as f64;
    Ok(distance)
}

/// Calls `each` with every position of a text and the logits of what follows it.
fn each_position(
    loaded: &Loaded,
    ids: &[u32],
    mut each: impl FnMut(usize, &[f32]),
) -> Result<(), Error> {
    let model = &loaded.model;
    let mut cache = model.new_cache(ids.len(), loaded.info.cache_type)?;
    for batch in ids.chunks(BATCH) {
        let first = cache.len();
        let logits = model.forward(batch, &mut cache, Logits::From(0));
        for (at, logits) in logits.chunks_exact(model.vocab()).enumerate() {
            each(first + at, logits);
        }
    }
    Ok(())
}

impl Distance {
    /// Adds one position; the mean divergence is a sum until all are added.
    fn add(&mut self, logits: &[f32], reference: &Position) {
        self.positions += 1;
        for (id, expected) in &reference.top {
            self.logit = self.logit.max((logits[*id as usize] - expected).abs());
        }
        let divergence = divergence(logits, reference);
        self.mean_divergence += divergence;
        self.largest_divergence = self.largest_divergence.max(divergence);
        let (Some((best, _)), Some((expected, highest))) =
            (likeliest(logits), reference.top.first().copied())
        else {
            return;
        };
        if best == expected {
            self.same_top += 1;
        }
        let found = reference.top.iter().find(|(id, _)| *id == best);
        let behind = found.map_or(f32::INFINITY, |(_, logit)| highest - logit);
        self.given_up = self.given_up.max(behind);
    }

    /// All positions of several texts together.
    pub fn total(parts: impl IntoIterator<Item = Distance>) -> Distance {
        let mut total = Distance::default();
        for part in parts {
            total.mean_divergence += part.mean_divergence * part.positions as f64;
            total.positions += part.positions;
            total.same_top += part.same_top;
            total.logit = total.logit.max(part.logit);
            total.largest_divergence = total.largest_divergence.max(part.largest_divergence);
            total.given_up = total.given_up.max(part.given_up);
        }
        total.mean_divergence /= total.positions.max(1) as f64;
        total
    }
}

/// KL divergence from the reference, its tokens beyond the likeliest taken as one.
fn divergence(logits: &[f32], reference: &Position) -> f64 {
    let sum = log_sum_exp(logits);
    let term = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
    let (mut total, mut rest_p, mut rest_q) = (0.0, 1.0, 1.0);
    for (id, expected) in &reference.top {
        let p = f64::from(expected - reference.logsumexp).exp();
        let q = (f64::from(logits[*id as usize]) - sum).exp();
        total += term(p, q);
        rest_p -= p;
        rest_q -= q;
    }
    total + term(rest_p.max(0.0), rest_q.max(1e-9))
}

/// ln Σ exp(x).
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from(logit - top).exp())
        .sum();
    sum.ln() + f64::from(top)
}

/// Whether a reference can be of a model with this vocabulary.
fn check(reference: &Reference, vocab: usize, context: u32) -> Result<(), Error> {
    let refuse = |problem: String| {
        let name = &reference.name;
        Err(Error::Text(format!("reference '{name}': {problem}")))
    };
    let is_known = |id: &u32| (*id as usize) < vocab;
    if reference.ids.is_empty() {
        return refuse("it has no tokens".to_owned());
    }
    // The cache is as long as the text.
    let tokens = reference.ids.len();
    if tokens > context as usize {
        return refuse(format!(
            "it has {tokens} tokens, and the model's context {context}"
        ));
    }
    if let Some(id) = reference.ids.iter().find(|id| !is_known(id)) {
        return refuse(format!(
            "token {id} is beyond the model's vocabulary of {vocab}"
        ));
    }
    let mut next = 0;
    for Position { pos, top, .. } in &reference.positions {
        if *pos < next || *pos >= reference.ids.len() {
            return refuse(format!(
                "position {pos} is out of order or beyond the text's {tokens} tokens"
            ));
        }
        next = pos + 1;
        let different: HashSet<u32> = top.iter().map(|(id, _)| *id).collect();
        if top.is_empty() || different.len() != top.len() || !different.iter().all(is_known) {
            return refuse(format!(
                "the tokens after position {pos} are none, repeated, or beyond the vocabulary of {vocab}"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn uniform(pos: usize, ids: &[u32]) -> Position {
        Position {
            pos,
            top: ids.iter().map(|id| (*id, 0.0)).collect(),
            logsumexp: 4f32.ln(),
        }
    }

    #[test]
    fn equal_distributions_do_not_diverge_and_others_do() {
        let reference = uniform(0, &[0, 1]);
        assert!(divergence(&[5.0; 4], &reference).abs() < 1e-6);
        // p = (1/4, 1/4, rest 1/2) against q = (1/2, 1/6, rest 1/3).
        let q = [3f32.ln(), 0.0, 0.0, 0.0];
        let expected = 0.25 * 0.5f64.ln() + 0.25 * 1.5f64.ln() + 0.5 * 1.5f64.ln();
        assert!((divergence(&q, &reference) - expected).abs() < 1e-6);
    }

    #[test]
    fn another_best_token_is_counted_and_weighed() {
        let mut distance = Distance::default();
        let reference = Position {
            pos: 0,
            top: vec![(2, 1.0), (0, 0.75)],
            logsumexp: 2.0,
        };
        distance.add(&[1.0, 0.0, 0.5], &reference);
        assert_eq!((distance.positions, distance.same_top), (1, 0));
        assert_eq!((distance.logit, distance.given_up), (0.5, 0.25));
        distance.add(&[0.75, 2.0, 1.0], &reference);
        assert_eq!(distance.given_up, f32::INFINITY);
    }

    #[test]
    fn impossible_references_are_refused_in_words() {
        let reference = |ids: &[u32], positions: &[Position]| Reference {
            name: "a".to_owned(),
            text: String::new(),
            ids: ids.to_vec(),
            positions: positions.to_vec(),
        };
        assert!(
            check(
                &reference(&[1, 2], &[uniform(0, &[1]), uniform(1, &[0])]),
                3,
                2
            )
            .is_ok()
        );
        for (ids, positions, words) in [
            (vec![], vec![], "no tokens"),
            (vec![1, 1, 1], vec![], "3 tokens, and the model's context 2"),
            (vec![3], vec![], "token 3 is beyond"),
            (vec![1], vec![uniform(1, &[0])], "position 1"),
            (
                vec![1, 1],
                vec![uniform(1, &[0]), uniform(0, &[0])],
                "out of order",
            ),
            (vec![1], vec![uniform(0, &[])], "none"),
            (vec![1], vec![uniform(0, &[0, 0])], "repeated"),
            (vec![1], vec![uniform(0, &[7])], "beyond the vocabulary"),
        ] {
            let error = check(&reference(&ids, &positions), 3, 2).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }
}
