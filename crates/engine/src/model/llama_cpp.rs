//! Beside llama.cpp, whose logits are committed: the trained model's quants, and models of random weights in the shapes
//! that the trained one does not have.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{
    ActivationType, Compat, Options, Progress,
    eval::{self, Position, Reference},
    load::load,
    testing::{
        fixtures, kimi_tiny, options,
        synthetic::{self, Shape},
        testdata,
    },
};

/// Largest difference of a logit in F32, where logits have a spread of about 1.
const BOUND: f32 = 1e-4;

/// References of `testdata/`.
fn golden(path: &str) -> Vec<Reference> {
    let text = fs::read_to_string(testdata().join(path)).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// KL divergence of one reference from another at the same position; tokens that one of them does not list count as
/// one.
fn between(exact: &Position, other: &Position) -> f64 {
    let probability = |position: &Position, logit: f32| f64::from(logit - position.logsumexp).exp();
    let (mut total, mut rest_p, mut rest_q) = (0.0, 1.0, 1.0);
    for (id, logit) in &exact.top {
        let Some((_, other_logit)) = other.top.iter().find(|(other, _)| other == id) else {
            continue;
        };
        let p = probability(exact, *logit);
        let q = probability(other, *other_logit);
        total += p * (p / q).ln();
        rest_p -= p;
        rest_q -= q;
    }
    // Where the listed ones are nearly all, what is left is the rounding of their digits.
    let [rest_p, rest_q] = [rest_p, rest_q].map(|rest: f64| rest.max(1e-6));
    total + rest_p * (rest_p / rest_q).ln()
}

/// One window can outweigh all others, so that a mean alone says little.
fn mean_and_median(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, values[values.len() / 2])
}

/// How far what is served of a file is from the file with activations in f32, and how far llama.cpp is: mean
/// divergences over all windows. `exact` is this engine, both are committed.
fn losses(path: &Path, quant: &str) -> (f64, f64) {
    let [exact, theirs] =
        ["exact", "llama"].map(|by| golden(&format!("llama.cpp/{quant}-{by}.json")));
    let options = Options {
        compat: Some(Compat::LlamaCpp),
        activations: ActivationType::Int8,
        ..options(path, 2)
    };
    let loaded = load(&options, &Progress::new()).unwrap();
    let ours = exact.iter().map(|exact| {
        let distance = eval::distance(&loaded, exact).unwrap();
        distance.mean_divergence
    });
    let theirs = exact.iter().zip(&theirs).map(|(exact, theirs)| {
        let pairs = exact.positions.iter().zip(&theirs.positions);
        let all: f64 = pairs.map(|(exact, theirs)| between(exact, theirs)).sum();
        all / exact.positions.len() as f64
    });
    let (ours, our_median) = mean_and_median(ours.collect());
    let (theirs, their_median) = mean_and_median(theirs.collect());
    eprintln!(
        "{quant}: {ours:.2e} lost, {:.2} of llama.cpp's; the median window {our_median:.2e}, {:.2}",
        ours / theirs,
        our_median / their_median
    );
    assert!(theirs > 1e-6, "{quant}: {theirs:e}");
    (ours, theirs)
}

/// What is served rounds activations, as llama.cpp does, and may lose by it at most 1.1 times as much.
#[test]
fn is_as_close_to_exact_activations_as_llama_cpp() {
    for quant in ["Q8_0", "Q4_K_M"] {
        let (ours, theirs) = losses(&kimi_tiny(quant), quant);
        assert!(
            ours <= 1.1 * theirs,
            "{quant}: {ours:e}, llama.cpp {theirs:e}"
        );
    }
}

#[test]
#[ignore = "needs KIMI_FIXTURES: make test-long"]
fn every_type_is_as_close_to_exact_activations_as_llama_cpp() {
    let Some(dir) = fixtures().map(|dir| dir.join("kimi-tiny-gguf")) else {
        return;
    };
    let mut failed = Vec::new();
    for entry in fs::read_dir(testdata().join("llama.cpp")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Some(quant) = name.strip_suffix("-exact.json") else {
            continue;
        };
        let (ours, theirs) = losses(&dir.join(format!("Kimi-Tiny-{quant}.gguf")), quant);
        if ours > 1.1 * theirs {
            failed.push(quant.to_owned());
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Compares a model with the goldens of that name.
fn check(shape: &Shape, golden_name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    shape.draft().write(&path);
    let options = Options {
        compat: Some(Compat::LlamaCpp),
        ..options(&path, 2)
    };
    let loaded = load(&options, &Progress::new()).unwrap();
    for reference in golden(&format!("shapes/{golden_name}.json")) {
        let distance = eval::distance(&loaded, &reference).unwrap();
        eprintln!("{}: {distance:?}", shape.name);
        assert!(distance.logit < BOUND, "{}: {distance:?}", shape.name);
        assert_eq!(distance.same_top, distance.positions);
    }
}

#[test]
fn every_shape_computes_what_llama_cpp_does() {
    for shape in synthetic::ALL {
        check(&shape, shape.name);
    }
}

/// llama.cpp does not read k_b and v_b in two dimensions; its logits are of the same weights in the layout it does.
#[test]
fn keys_and_values_in_two_dimensions_compute_what_llama_cpp_does() {
    for (shape, same) in synthetic::OURS {
        check(&shape, same.name);
    }
}

/// `KIMI_SHAPES=DIR cargo test -p engine shapes -- --ignored` writes the models and a request for their logits to DIR;
/// bench/shapes.sh makes the goldens of them.
#[test]
#[ignore = "writes files for bench/shapes.sh"]
fn writes_the_shapes() {
    let dir = PathBuf::from(env::var_os("KIMI_SHAPES").unwrap());
    // Tokens of words, none of them special.
    let ids: Vec<u32> = (0..40).map(|at| 300 + at * 61).collect();
    let position = |pos| Position {
        pos,
        // As many as are wanted.
        top: vec![(0, 0.0); 16],
        logsumexp: 0.0,
    };
    let request = [Reference {
        name: "words".to_owned(),
        text: String::new(),
        ids,
        positions: [0, 1, 20, 39].map(position).to_vec(),
    }];
    fs::write(
        dir.join("request.json"),
        serde_json::to_string(&request).unwrap(),
    )
    .unwrap();
    for shape in synthetic::ALL {
        shape
            .draft()
            .write(&dir.join(format!("{}.gguf", shape.name)));
    }
}
