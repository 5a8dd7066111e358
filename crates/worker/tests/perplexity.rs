//! Drives `kimi perplexity` with the committed model. Knows the command line and its one line of output only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{fs, path::Path, process::Command};

#[test]
fn perplexity_is_one_line_and_llama_cpp_s_number() {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata");
    let shard = "hub/kimi-operator/Kimi-Tiny-GGUF/Q8_0/Kimi-Tiny-Q8_0-00001-of-00003.gguf";
    let output = Command::new(env!("CARGO_BIN_EXE_kimi"))
        .env_remove("RUST_LOG")
        .args(["perplexity", "-c", "192", "--chunks", "40", "-m"])
        .arg(testdata.join(shard))
        .arg("-f")
        .arg(testdata.join("heldout.txt"))
        .output()
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");

    let stdout = String::from_utf8(output.stdout).unwrap();
    let line = stdout.strip_suffix('\n').unwrap();
    assert!(!line.contains('\n'), "one line: {stdout:?}");
    let (value, error) = line
        .strip_prefix("perplexity: ")
        .and_then(|numbers| numbers.split_once(" +/- "))
        .unwrap_or_else(|| panic!("{line:?}"));
    let [value, error] = [value, error].map(|number| number.parse::<f64>().unwrap());

    // FILE BYTES PERPLEXITY +/- ERROR
    let table = fs::read_to_string(testdata.join("ppl.txt")).unwrap();
    let expected = table
        .lines()
        .find_map(|line| line.strip_prefix("Kimi-Tiny-Q8_0 "))
        .unwrap();
    let expected: Vec<&str> = expected.split_whitespace().collect();
    let [wanted, wanted_error] =
        [expected[1], expected[3]].map(|number| number.parse::<f64>().unwrap());
    assert!(
        (value / wanted - 1.0).abs() < 0.003,
        "{line}, llama.cpp {wanted}"
    );
    assert!(
        (error - wanted_error).abs() < 0.01,
        "{line}, llama.cpp's error {wanted_error}"
    );
}
