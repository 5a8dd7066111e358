//! v1alpha1 grows by additions only: every example that was ever committed is frozen in `tests/history/`, named by the
//! hash of its text, and must still pass the current schema, its rules and the spec's own checks. Examples of today are
//! frozen by `make gen`. Runs without a cluster; `e2e/chart.sh` applies the same files to a real API server.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::schema::{self, faults};
use kimi_operator::names;
use serde::Deserialize;
use serde_json::Value;

fn directory(path: &str) -> Vec<(PathBuf, String)> {
    let mut files: Vec<_> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"))
        .map(|path| (path.clone(), fs::read_to_string(&path).unwrap()))
        .collect();
    files.sort();
    files
}

fn frozen_name(stem: &str, text: &str) -> String {
    format!("{stem}-{}.yaml", names::short_hash(text))
}

#[test]
fn every_example_of_today_is_frozen() {
    let history = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/history");
    for (path, text) in directory("examples") {
        let stem = path.file_stem().unwrap().to_str().unwrap();
        let frozen = history.join(frozen_name(stem, &text));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&frozen, &text).unwrap();
        }
        assert!(
            frozen.exists(),
            "{} is not in tests/history: run `make gen`",
            path.display()
        );
    }
}

#[test]
fn every_example_of_earlier_commits_still_applies() {
    let schema = schema::of_kimi_model();
    let mut seen = 0;
    for (path, text) in directory("tests/history") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let stem = name.rsplit_once('-').unwrap().0;
        assert_eq!(name, frozen_name(stem, &text), "a frozen file was edited");
        let loaded = spec::load_all(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!loaded.is_empty(), "{name} holds no KimiModel");
        for document in serde_yaml::Deserializer::from_str(&text) {
            let document = Value::deserialize(document).unwrap();
            if document["kind"] == spec::KIND {
                let faults = faults(&schema, &document);
                assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
                seen += 1;
            }
        }
    }
    assert!(seen >= 10, "{seen} examples");
}
