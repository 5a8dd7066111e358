//! Rules about the source tree that a reviewer should not have to repeat: every file opens with a purpose, files
//! stay small, crate edges point one way, `unsafe` stays where it is argued. Knows paths and text only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest Rust file, in lines. Lower it when the longest file shrinks; never raise it for a single file.
const MAX_LINES: usize = 700;

/// `crate -> workspace crates it may use`. Anything else is an error: add an edge only with a reason in
/// ARCHITECTURE.md.
const EDGES: &[(&str, &[&str])] = &[
    ("gguf", &[]),
    ("fetch", &[]),
    ("spec", &[]),
    ("testhub", &[]),
    ("quant", &["gguf"]),
    ("convert", &["gguf", "quant"]),
    ("sizing", &["gguf"]),
    ("engine", &["gguf", "quant", "sizing"]),
    ("server", &["engine"]),
    (
        "worker",
        &[
            "gguf", "quant", "spec", "sizing", "engine", "fetch", "server", "convert",
        ],
    ),
    ("kimi-operator", &["spec", "sizing"]),
    ("fuzz", &["gguf", "convert", "engine", "server"]),
    ("e2e", &["spec", "gguf"]),
];

/// Where `unsafe` is allowed: kernels, the weight mapping, and the few Linux calls of the downloader.
const UNSAFE: &[&str] = &[
    "crates/quant/src/",
    "crates/engine/src/weights.rs",
    "crates/fetch/src/sys.rs",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(ext: &str) -> Vec<(String, String)> {
    fn walk(dir: &Path, ext: &str, out: &mut Vec<(String, String)>) {
        let Ok(entries) = fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !name.starts_with('.') && name != "target" && name != "corpus" {
                    walk(&path, ext, out);
                }
            } else if path.extension().is_some_and(|e| e == ext) {
                let relative = path
                    .strip_prefix(root())
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                if let Ok(text) = fs::read_to_string(&path) {
                    out.push((relative, text));
                }
            }
        }
    }
    let mut out = Vec::new();
    walk(&root(), ext, &mut out);
    out.sort();
    out
}

fn check(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn every_file_opens_with_its_purpose_and_stays_small() {
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        if !text.starts_with("//!") {
            problems.push(format!(
                "{path}: must open with one `//!` paragraph saying what the file is for"
            ));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            problems.push(format!(
                "{path}: {lines} lines, more than {MAX_LINES}: split it by what it does"
            ));
        }
    }
    check(problems);
}

#[test]
fn crate_edges_point_one_way() {
    let known: BTreeSet<&str> = EDGES.iter().map(|(name, _)| *name).collect();
    let mut problems = Vec::new();
    for (path, text) in files("toml") {
        if !path.ends_with("Cargo.toml") || path.contains("/libfuzzer/") {
            continue;
        }
        let Some(name) = text
            .lines()
            .find_map(|l| l.strip_prefix("name = \"")?.strip_suffix('"'))
        else {
            continue;
        };
        let Some((_, allowed)) = EDGES.iter().find(|(n, _)| *n == name) else {
            problems.push(format!("{path}: crate `{name}` has no row in EDGES"));
            continue;
        };
        let mut section = "";
        for line in text.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            // Test-only edges are free: a test may drive whatever it likes.
            if section == "[dependencies]"
                && known.contains(dependency)
                && !allowed.contains(&dependency)
            {
                problems.push(format!("{path}: `{name}` must not use `{dependency}`"));
            }
        }
    }
    check(problems);
}

#[test]
fn unsafe_stays_where_it_is_argued() {
    let mut problems = Vec::new();
    for (path, text) in files("rs") {
        if UNSAFE.iter().any(|allowed| path.starts_with(allowed)) || path == "tests/tidy.rs" {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains("unsafe ") && !code.contains("unsafe_") {
                problems.push(format!(
                    "{path}:{}: `unsafe` outside {UNSAFE:?}",
                    number + 1
                ));
            }
        }
    }
    check(problems);
}

#[test]
fn every_example_is_a_kimi_model() {
    let mut seen = 0;
    for (path, text) in files("yaml")
        .into_iter()
        .filter(|(p, _)| p.starts_with("examples/"))
    {
        seen += 1;
        let documents = spec::load_all(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(!documents.is_empty(), "{path}: holds no KimiModel");
    }
    assert!(seen > 0, "examples/ holds no YAML");
}
