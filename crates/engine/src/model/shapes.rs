//! Models of the shapes that the trained one does not have, beside llama.cpp: made of random weights, evaluated by it
//! once, and committed as its logits.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{env, fs, path::PathBuf};

use crate::{
    Compat, Options, Progress,
    eval::{self, Position, Reference},
    load::load,
    testing::{
        options,
        synthetic::{self, Shape},
        testdata,
    },
};

/// Largest difference of a logit in F32, where logits have a spread of about 1.
const BOUND: f32 = 1e-4;

fn golden(shape: &Shape) -> PathBuf {
    testdata().join(format!("shapes/{}.json", shape.name))
}

#[test]
fn every_shape_computes_what_llama_cpp_does() {
    let dir = tempfile::tempdir().unwrap();
    for shape in synthetic::ALL {
        let path = dir.path().join("model.gguf");
        shape.draft().write(&path);
        let options = Options {
            compat: Some(Compat::LlamaCpp),
            ..options(&path, 2)
        };
        let loaded = load(&options, &Progress::new()).unwrap();
        let text = fs::read_to_string(golden(&shape)).unwrap();
        let references: Vec<Reference> = serde_json::from_str(&text).unwrap();
        for reference in references {
            let distance = eval::distance(&loaded, &reference).unwrap();
            eprintln!("{}: {distance:?}", shape.name);
            assert!(distance.logit < BOUND, "{}: {distance:?}", shape.name);
            assert_eq!(distance.same_top, distance.positions);
        }
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
