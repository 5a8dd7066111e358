//! Two models side by side: how far each tensor of one is from the other's of the same name, and how
//! differently they continue a text. It must not know which of them is right.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use gguf::TensorInfo;
use rayon::prelude::*;

use crate::{
    ActivationType, Error, Options, Progress,
    eval::log_sum_exp,
    load::{Loaded, load, open},
    model::{BATCH, Logits},
    perplexity::{loss, windows},
    sampler::likeliest,
    weights::{Matrix, Weights},
};

/// Rows that one task compares.
const ROWS: usize = 64;

/// The same tensor in two models.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorError {
    /// Its name.
    pub name: String,
    /// Its type in the first and in the second model.
    pub types: [&'static str; 2],
    /// Values in it.
    pub values: u64,
    /// ‖second − first‖ / ‖first‖; 0 where they are equal, infinite where only the first is all zeros.
    pub relative: f64,
    /// Largest difference of a value.
    pub largest: f32,
}

/// The tensors of two models.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorComparison {
    /// Tensors of the same name and shape, by name.
    pub both: Vec<TensorError>,
    /// Names that only the first has, or has in another shape.
    pub only_first: Vec<String>,
    /// Names that only the second has, or has in another shape.
    pub only_second: Vec<String>,
}

/// How two models continue a text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TextComparison {
    /// Tokens compared.
    pub tokens: u64,
    /// Mean KL divergence of the second's distributions from the first's, in nats.
    pub mean_divergence: f64,
    /// Half of the divergences are no larger.
    pub median_divergence: f64,
    /// 99 of 100 are no larger.
    pub p99_divergence: f64,
    /// The largest.
    pub largest_divergence: f64,
    /// Tokens after which both find the same next token likeliest.
    pub same_top: u64,
    /// Largest difference of a logit.
    pub logit: f32,
    /// exp of the mean −ln p of the text's own tokens, by the first and by the second.
    pub perplexity: [f64; 2],
}

/// Compares all tensors of two models. Reads both files once.
///
/// # Errors
/// Those of opening the files, and a tensor of a type without kernels.
pub fn compare_tensors(
    first: &Options,
    second: &Options,
    progress: &Arc<Progress>,
) -> Result<TensorComparison, Error> {
    let [first, second] = [first, second].map(|options| {
        let (files, headers) = open(options, progress)?;
        Weights::map(&files, &headers, ActivationType::F32)
    });
    let (first, second) = (first?, second?);
    let [in_first, in_second] = [&first, &second].map(|weights| {
        let named = weights.tensors().map(|info| (info.name.as_str(), info));
        named.collect::<BTreeMap<&str, &TensorInfo>>()
    });
    let mut comparison = TensorComparison::default();
    let names: BTreeSet<&str> = in_first.keys().chain(in_second.keys()).copied().collect();
    for name in names {
        match (in_first.get(name), in_second.get(name)) {
            (Some(a), Some(b)) if a.dims == b.dims => {
                let (relative, largest) = difference(&first.whole(name)?, &second.whole(name)?);
                comparison.both.push(TensorError {
                    name: name.to_owned(),
                    types: [a.dtype.name(), b.dtype.name()],
                    values: a.values(),
                    relative,
                    largest,
                });
            }
            (a, b) => {
                if a.is_some() {
                    comparison.only_first.push(name.to_owned());
                }
                if b.is_some() {
                    comparison.only_second.push(name.to_owned());
                }
            }
        }
        progress.touch();
    }
    Ok(comparison)
}

/// (‖b − a‖ / ‖a‖, largest |b − a|) of matrices of one shape.
fn difference(a: &Matrix, b: &Matrix) -> (f64, f32) {
    let (a, b) = (a.view(), b.view());
    let parts: Vec<(f64, f64, f32)> = (0..a.rows().div_ceil(ROWS))
        .into_par_iter()
        .map(|part| {
            let [mut x, mut y] = [vec![0.0; a.cols], vec![0.0; a.cols]];
            let (mut squares, mut norm, mut largest) = (0.0, 0.0, 0.0f32);
            for row in part * ROWS..a.rows().min((part + 1) * ROWS) {
                a.decode_row(row, &mut x);
                b.decode_row(row, &mut y);
                for (x, y) in x.iter().zip(&y) {
                    let difference = y - x;
                    squares += f64::from(difference) * f64::from(difference);
                    norm += f64::from(*x) * f64::from(*x);
                    largest = largest.max(difference.abs());
                }
            }
            (squares, norm, largest)
        })
        .collect();
    // In order, so that the number of threads does not show.
    let (squares, norm, largest) = parts.iter().fold((0.0, 0.0, 0.0f32), |sum, part| {
        (sum.0 + part.0, sum.1 + part.1, sum.2.max(part.2))
    });
    let relative = if squares == 0.0 {
        0.0
    } else {
        (squares / norm).sqrt()
    };
    (relative, largest)
}

/// Lets two models of one vocabulary read windows of `context` tokens of `text`, at most `chunks` of
/// them, and compares what they expect after each token of the windows' second halves.
///
/// # Errors
/// Those of loading; [`Error::Options`] for two vocabularies; [`Error::Text`] when the text is too short.
pub fn compare_text(
    first: &Options,
    second: &Options,
    text: &str,
    context: u32,
    chunks: Option<u32>,
    progress: &Arc<Progress>,
) -> Result<TextComparison, Error> {
    let (first, second) = (load(first, progress)?, load(second, progress)?);
    let [vocab, other] = [&first, &second].map(|loaded| loaded.model.vocab());
    if vocab != other {
        return Err(Error::Options(format!(
            "the models have vocabularies of {vocab} and {other} tokens; compare two quants of one model"
        )));
    }
    let mut divergences = Vec::new();
    let mut losses = [0.0; 2];
    let (mut judged, mut same_top, mut logit) = (0u64, 0, 0.0f32);
    for window in windows(&first, text, context, chunks)? {
        let half = window.len() / 2;
        each_pair(&first, &second, &window, |at, a, b| {
            if at < half {
                return;
            }
            divergences.push(divergence(a, b));
            same_top += u64::from(likeliest(a).map(|top| top.0) == likeliest(b).map(|top| top.0));
            let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
            logit = differences.fold(logit, f32::max);
            if let Some(next) = window.get(at + 1) {
                judged += 1;
                losses[0] += loss(a, *next);
                losses[1] += loss(b, *next);
            }
        })?;
    }
    let tokens = divergences.len();
    let mean_divergence = divergences.iter().sum::<f64>() / tokens.max(1) as f64;
    divergences.sort_by(f64::total_cmp);
    // Nearest rank.
    let no_larger = |share: f64| {
        let rank = (share * tokens as f64).ceil() as usize;
        divergences.get(rank.max(1) - 1).copied().unwrap_or(0.0)
    };
    Ok(TextComparison {
        tokens: tokens as u64,
        mean_divergence,
        median_divergence: no_larger(0.5),
        p99_divergence: no_larger(0.99),
        largest_divergence: no_larger(1.0),
        same_top,
        logit,
        perplexity: losses.map(|sum| (sum / judged.max(1) as f64).exp()),
    })
}

/// Calls `each` with every position of a window and both models' logits after it.
fn each_pair(
    first: &Loaded,
    second: &Loaded,
    window: &[u32],
    mut each: impl FnMut(usize, &[f32], &[f32]),
) -> Result<(), Error> {
    let cache = |loaded: &Loaded| loaded.model.new_cache(window.len(), loaded.info.cache_type);
    let (mut a, mut b) = (cache(first)?, cache(second)?);
    let vocab = first.model.vocab();
    for batch in window.chunks(BATCH) {
        let start = a.len();
        let of_first = first.model.forward(batch, &mut a, Logits::From(0));
        let of_second = second.model.forward(batch, &mut b, Logits::From(0));
        let pairs = of_first
            .chunks_exact(vocab)
            .zip(of_second.chunks_exact(vocab));
        for (at, (of_first, of_second)) in pairs.enumerate() {
            each(start + at, of_first, of_second);
        }
    }
    Ok(())
}

/// KL divergence of b's distribution from a's, in nats.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let (sum_a, sum_b) = (log_sum_exp(a), log_sum_exp(b));
    let terms = a.iter().zip(b).map(|(a, b)| {
        let (ln_p, ln_q) = (f64::from(*a) - sum_a, f64::from(*b) - sum_b);
        ln_p.exp() * (ln_p - ln_q)
    });
    // Rounding may leave a little less than nothing.
    terms.sum::<f64>().max(0.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::{kimi_tiny, testdata};

    fn options(quant: &str) -> Options {
        Options {
            threads: Some(2),
            ..Options::new(kimi_tiny(quant))
        }
    }

    #[test]
    fn divergence_of_known_distributions() {
        let [p, q] = [[0.0, 2f32.ln()], [0.0, 0.0]];
        let expected = 1.0 / 3.0 * (2.0f64 / 3.0).ln() + 2.0 / 3.0 * (4.0f64 / 3.0).ln();
        assert!((divergence(&p, &q) - expected).abs() < 1e-6);
        assert!(divergence(&p, &p) < 1e-12);
    }

    #[test]
    fn differences_of_known_matrices() {
        let a = Matrix::from_floats(&[3.0, 0.0, 0.0, 4.0], 2).unwrap();
        let b = Matrix::from_floats(&[3.0, 1.0, 0.0, 4.0], 2).unwrap();
        let zero = Matrix::from_floats(&[0.0; 4], 2).unwrap();
        assert_eq!(difference(&a, &b), (0.2, 1.0));
        assert_eq!(difference(&zero, &zero), (0.0, 0.0));
        assert_eq!(difference(&zero, &a).0, f64::INFINITY);
    }

    #[test]
    fn two_quants_of_a_model() {
        let progress = Progress::new();
        let [fine, coarse] = ["Q8_0", "Q4_K_M"].map(options);
        let tensors = compare_tensors(&fine, &coarse, &progress).unwrap();
        assert!(tensors.only_first.is_empty() && tensors.only_second.is_empty());
        for tensor in &tensors.both {
            let kept = tensor.types[0] == tensor.types[1];
            assert!(kept || tensor.relative > 0.001, "{tensor:?}");
            assert!(tensor.relative < 0.15, "{tensor:?}");
        }
        let norm = |name: &str| tensors.both.iter().find(|tensor| tensor.name == name);
        assert_eq!(norm("output_norm.weight").unwrap().relative, 0.0);

        let text = fs::read_to_string(testdata().join("heldout.txt")).unwrap();
        let found = compare_text(&fine, &coarse, &text, 192, Some(2), &progress).unwrap();
        assert_eq!(found.tokens, 192);
        assert!((1e-4..0.1).contains(&found.mean_divergence), "{found:?}");
        assert!(found.median_divergence <= found.p99_divergence, "{found:?}");
        assert!(found.same_top > 160, "{found:?}");
        let itself = compare_text(&fine, &fine, &text, 192, Some(1), &progress).unwrap();
        assert_eq!((itself.logit, itself.same_top), (0.0, 96));
        assert!(itself.largest_divergence < 1e-12);
    }
}
