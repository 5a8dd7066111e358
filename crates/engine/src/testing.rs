//! Where tests find models and reference logits. Compiled for tests only.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::{
    env,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    Options, Progress,
    load::{Loaded, load},
};

/// Reference logits of one text, by transformers in F32 from the BF16 weights.
#[derive(Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    pub(crate) positions: Vec<Position>,
}

/// Logits after one position of the text.
#[derive(Deserialize)]
pub(crate) struct Position {
    pub(crate) pos: usize,
    /// (token, logit), highest first.
    pub(crate) top: Vec<(u32, f32)>,
    pub(crate) logsumexp: f32,
}

/// The directory of the full fixtures, when the environment names it.
pub(crate) fn fixtures() -> Option<PathBuf> {
    let dir = env::var_os("KIMI_FIXTURES").map(PathBuf::from);
    if dir.is_none() {
        eprintln!("skipped: KIMI_FIXTURES does not name the directory of kimi-tiny");
    }
    dir
}

/// The small model that the repository carries.
pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

/// The repository's model in a quant, `Q4_K_M` or `Q8_0`.
pub(crate) fn kimi_tiny(quant: &str) -> PathBuf {
    testdata()
        .join("hub/kimi-operator/Kimi-Tiny-GGUF")
        .join(quant)
}

pub(crate) fn references(dir: &Path) -> Vec<Reference> {
    serde_json::from_str(&std::fs::read_to_string(dir.join("logits.json")).unwrap()).unwrap()
}

pub(crate) fn loaded(path: &Path, threads: usize) -> Loaded {
    let options = Options {
        threads: Some(threads),
        ..Options::new(path)
    };
    load(&options, &Progress::new()).unwrap()
}
