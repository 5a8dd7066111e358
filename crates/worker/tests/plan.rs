//! `kimi plan` as a user runs it: exit codes, JSON field names, exact plans from local files, and errors with a next
//! step.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

struct Run {
    code: i32,
    out: String,
    err: String,
}

/// Runs `kimi plan` in the repository's root with `yaml` on standard input.
fn plan(args: &[&str], yaml: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kimi"))
        .arg("plan")
        .args(args)
        .current_dir(ROOT)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(yaml.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn document(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: kimioperator.dev/v1alpha1\nkind: KimiModel\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

const FITS: &str = "{model: Kimi-K2-Instruct, quant: UD-Q2_K_XL, hardware: T4}";
const REFUSED: &str = "{model: Kimi-K2-Instruct, quant: UD-Q4_K_XL, hardware: T4}";

#[test]
fn a_plan_that_fits_exits_0_and_prints_a_table() {
    let run = plan(&["-f", "-"], &document("kimi-k2", FITS));
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    let rows: Vec<Vec<&str>> = run
        .out
        .lines()
        .take(2)
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..5], ["NAME", "QUANT", "HARDWARE", "FITS", "VRAM"]);
    assert_eq!(
        rows[1][..7],
        ["kimi-k2", "UD-Q2_K_XL", "T4", "yes", "12GB", "of", "16GB"]
    );
}

#[test]
fn json_has_the_fields_of_status_plan() {
    let run = plan(&["-f", "-", "-o", "json"], &document("kimi-k2", FITS));
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    for field in [
        "storageBytes",
        "ramBytes",
        "ramMinBytes",
        "vramBytes",
        "gpuExperts",
        "downloadSeconds",
    ] {
        assert!(json[field].is_u64(), "{field} in {json}");
    }
    assert_eq!(
        (json["fits"].as_str(), json["storageBytes"].as_u64()),
        (Some("yes"), Some(450_000_000_000))
    );
    assert!(json["reason"].is_string());
    let slow = plan(
        &["-f", "-", "-o", "json", "--bandwidth", "100"],
        &document("kimi-k2", FITS),
    );
    let json: serde_json::Value = serde_json::from_str(&slow.out).unwrap();
    assert_eq!(json["downloadSeconds"].as_u64(), Some(30_480));
}

#[test]
fn one_refusal_among_several_documents_exits_1() {
    let yaml = format!(
        "{}---\n{}",
        document("small", FITS),
        document("large", REFUSED)
    );
    let run = plan(&["-f", "-"], &yaml);
    assert_eq!(run.code, 1, "{}", run.err);
    for words in [
        "small",
        "large",
        "~18 GB",
        "16 GB",
        "largest quant that fits is UD-IQ3_XXS",
    ] {
        assert!(run.out.contains(words), "{words:?} not in {}", run.out);
    }
    let json = plan(&["-f", "-", "-o", "json"], &yaml);
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json.out).unwrap();
    assert_eq!((rows.len(), rows[1]["fits"].as_str()), (2, Some("no")));
}

#[test]
fn auto_says_what_it_chose_and_why() {
    let spec = "{model: Kimi-K2-Thinking, quant: auto, objective: Cost, hardware: A10}";
    let run = plan(&["-f", "-"], &document("cheap", spec));
    assert!(
        run.out.contains("auto chose UD-TQ1_0"),
        "{}{}",
        run.out,
        run.err
    );
    assert!(run.out.contains("use case Cost-optimized"), "{}", run.out);
}

#[test]
fn bad_files_exit_2_and_say_what_to_do() {
    let unknown = "{model: Kimi-K9, quant: UD-TQ1_0, hardware: T4}";
    let foreign = "{model: Kimi-K2-Instruct, source: {huggingFace: {repo: someone/Else-GGUF}}, quant: UD-Q2_K_XL, hardware: T4}";
    let outside = "{source: {huggingFace: {repo: a/b}}, quant: Q4_K_M, hardware: CPU}";
    for (yaml, words) in [
        (String::new(), "KimiModel"),
        ("{".to_owned(), "YAML"),
        (document("x", "{quant: UD-TQ1_0, hardware: T4}"), "model"),
        (
            document("x", unknown),
            "the catalogue has no model 'Kimi-K9'; it has: Kimi-K2-Instruct",
        ),
        (document("x", outside), "--facts REPORT"),
        // The catalogue's sizes are not those of somebody else's files, whatever the names.
        (
            document("x", foreign),
            "UD-Q2_K_XL of someone/Else-GGUF; --gguf FILE",
        ),
    ] {
        let run = plan(&["-f", "-"], &yaml);
        assert_eq!((run.code, run.out.as_str()), (2, ""), "{yaml}");
        assert!(run.err.contains(words), "{words:?} not in {}", run.err);
    }
    let run = plan(&["-f", "/nonexistent.yaml"], "");
    assert_eq!(run.code, 2);
    assert!(run.err.contains("/nonexistent.yaml"), "{}", run.err);
}

#[test]
fn local_files_plan_exactly() {
    let first =
        "testdata/hub/kimi-operator/Kimi-Tiny-GGUF/Q4_K_M/Kimi-Tiny-Q4_K_M-00001-of-00003.gguf";
    assert!(Path::new(ROOT).join(first).exists());
    let run = plan(
        &[
            "-f",
            "examples/kimi-tiny.yaml",
            "-o",
            "json",
            "--gguf",
            first,
        ],
        "",
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let json: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(
        (json["basis"].as_str(), json["fits"].as_str()),
        (Some("exact"), Some("yes"))
    );
    assert_eq!(
        (json["storageBytes"].as_u64(), json["vramBytes"].as_u64()),
        (Some(1_000_000_000), Some(0))
    );
}

#[test]
fn the_examples_plan_or_say_how() {
    for (file, code) in [
        ("examples/kimi-k2-research.yaml", 0),
        ("examples/kimi-tiny.yaml", 2),
        ("examples/moonlight.yaml", 2),
    ] {
        let run = plan(&["-f", file], "");
        assert_eq!(run.code, code, "{file}: {}{}", run.out, run.err);
        assert_eq!(
            run.err.contains("makes an exact plan"),
            code == 2,
            "{}",
            run.err
        );
        let text = std::fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
        assert_eq!(text.contains("#   kimi plan -f"), code == 2, "{file}");
    }
}
