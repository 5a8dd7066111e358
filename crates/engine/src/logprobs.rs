//! How likely tokens are by a row of logits. It must not know sampling or requests.

use crate::Logprobs;

/// What `logits` say of `token`, and of the `top` likeliest.
pub(crate) fn logprobs(logits: &[f32], token: u32, top: u32) -> Logprobs {
    let norm = log_sum_exp(logits);
    let of = |logit: f32| (f64::from(logit) - norm) as f32;
    let likeliest = likeliest(logits, top as usize);
    Logprobs {
        logprob: logits
            .get(token as usize)
            .map_or(f32::NEG_INFINITY, |logit| of(*logit)),
        top: likeliest
            .into_iter()
            .map(|(id, logit)| (id, of(logit)))
            .collect(),
    }
}

/// ln Σ exp(logit), over numbers only.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let numbers = || logits.iter().filter(|logit| !logit.is_nan());
    let most = f64::from(numbers().copied().fold(f32::NEG_INFINITY, f32::max));
    if most == f64::NEG_INFINITY {
        return 0.0;
    }
    let sum: f64 = numbers()
        .map(|logit| (f64::from(*logit) - most).exp())
        .sum();
    most + sum.ln()
}

/// The `count` highest logits, highest first, among equals the lowest id. Insertion into a short
/// sorted list: of a large vocabulary, few beat the last of the list.
fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (id, logit) in (0..).zip(logits.iter().copied()) {
        let beaten = best.len() == count && best.last().is_none_or(|last| logit <= last.1);
        if logit.is_nan() || beaten {
            continue;
        }
        let at = best.partition_point(|better| better.1 >= logit);
        best.insert(at, (id, logit));
        best.truncate(count);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_of_probabilities() {
        // Probabilities 1/8, 4/8, 2/8, 1/8.
        let logits = [1.0, 4.0, 2.0, 1.0].map(f32::ln);
        let found = logprobs(&logits, 0, 3);
        let near = |a: f32, b: f32| (a - b).abs() < 1e-6;
        assert!(near(found.logprob, 0.125f32.ln()), "{found:?}");
        let ids: Vec<u32> = found.top.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, [1, 2, 0], "the lower id first among equals");
        assert!(near(found.top[1].1, 0.25f32.ln()), "{found:?}");
        assert_eq!(logprobs(&logits, 1, 1).logprob, found.top[0].1);
        assert!(logprobs(&logits, 0, 0).top.is_empty());
        assert_eq!(logprobs(&logits, 0, 9).top.len(), 4);
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let found = logprobs(&[f32::NAN, 0.0, f32::NEG_INFINITY], 1, 5);
        assert_eq!(found.logprob, 0.0);
        assert_eq!(found.top, [(1, 0.0), (2, f32::NEG_INFINITY)]);
    }
}
