//! docs/capability-levels.md names a test behind each line: each file and each test that it names is there. Knows text and
//! paths only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// The file that a word of the page means: a path from the root, or from the controller.
fn file(word: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    [root.join(word), root.join("src/controller").join(word)]
        .into_iter()
        .find(|path| path.is_file())
}

#[test]
fn every_test_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/capability-levels.md")).unwrap();
    let mut named = 0;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let words = line.split('`').skip(1).step_by(2);
        for word in words.filter(|word| word.contains(".rs") || word.ends_with(".sh")) {
            let (path, test) = word
                .split_once("::")
                .map_or((word, None), |(path, test)| (path, Some(test)));
            let path = file(path).unwrap_or_else(|| panic!("no file {path}: {line}"));
            if let Some(test) = test {
                let text = std::fs::read_to_string(path).unwrap();
                assert!(text.contains(&format!("fn {test}(")), "no test {word}");
            }
            named += 1;
        }
    }
    assert!(named > 25, "{named} tests named");
}
