//! Drives `kimi inspect`, `eval` and `compare` with the committed model and with small files made here. Knows the
//! command line and what it prints.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata")
}

fn model(quant: &str) -> PathBuf {
    testdata()
        .join("hub/kimi-operator/Kimi-Tiny-GGUF")
        .join(quant)
}

/// (exit code is 0, standard output, standard error) of a command line.
fn run(arguments: &[&str], paths: &[&Path]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kimi"))
        .env_remove("RUST_LOG")
        .args(arguments)
        .args(paths)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.success(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn json_of(arguments: &[&str], paths: &[&Path]) -> Value {
    let (succeeded, stdout, stderr) = run(arguments, paths);
    assert!(succeeded, "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn inspect_plans_for_every_hardware_with_the_cache_asked_for() {
    let ask = |kind| {
        json_of(
            &[
                "inspect",
                "-o",
                "json",
                "-c",
                "131072",
                "--cache-type",
                kind,
            ],
            &[&model("Q4_K_M")],
        )
    };
    let (half, eighth) = (ask("f16"), ask("q8_0"));
    let on = |summary: &Value, hardware: &str| {
        let rows = summary["serving"].as_array().unwrap().clone();
        rows.into_iter()
            .find(|row| row["hardware"] == hardware)
            .unwrap()
    };
    assert_eq!(on(&half, "T4")["fits"], "yes");
    assert_eq!(on(&half, "CPU")["vramBytes"], 0);
    // 4 layers x 288 values x 131,072 tokens: 2 bytes each, or 34 for 32.
    let saved = on(&half, "CPU")["ramBytes"].as_u64().unwrap()
        - on(&eighth, "CPU")["ramBytes"].as_u64().unwrap();
    assert_eq!(saved, 4 * (288 * 2 - 288 / 32 * 34) * 131_072);
    assert_eq!(half["metadata"]["deepseek2.attention.kv_lora_rank"], 256);
    assert_eq!(half["metadata"]["tokenizer.ggml.tokens"], "4096 values");
}

/// A safetensors file of zeros.
fn safetensors(path: &Path, tensors: &[(&str, &str, &[u64], u64)]) {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [end, end + bytes];
        end += bytes;
        header.insert(
            (*name).to_owned(),
            json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}),
        );
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + end as usize, 0);
    fs::write(path, file).unwrap();
}

#[test]
fn inspect_reads_checkpoints_with_packed_experts() {
    let dir = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["KimiK25ForConditionalGeneration"],
        "text_config": {"max_position_embeddings": 262_144, "num_hidden_layers": 2},
    });
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let expert = "language_model.model.layers.1.mlp.experts.0.up_proj";
    safetensors(
        &dir.path().join("model-00001-of-00002.safetensors"),
        &[(
            "language_model.model.embed_tokens.weight",
            "BF16",
            &[10, 64],
            1280,
        )],
    );
    safetensors(
        &dir.path().join("model-00002-of-00002.safetensors"),
        &[
            (&format!("{expert}.weight_packed"), "I32", &[32, 8], 1024),
            (&format!("{expert}.weight_scale"), "BF16", &[32, 2], 128),
        ],
    );
    let summary = json_of(&["inspect", "-o", "json"], &[dir.path()]);
    assert_eq!(summary["architecture"], "KimiK25ForConditionalGeneration");
    assert_eq!(summary["contextLength"], 262_144);
    assert_eq!(summary["parameters"], 10 * 64 + 32 * 64);
    // 4 bits, and 16 for every 32 weights.
    assert_eq!(summary["bitsPerWeight"]["experts"], 4.5);
    assert_eq!(summary["bitsPerWeight"]["other"], 16.0);
    assert_eq!(summary["metadata"]["text_config.num_hidden_layers"], 2);
    let (_, table, _) = run(&["inspect"], &[dir.path()]);
    assert!(
        table.contains("INT4") && table.contains("kimi convert"),
        "{table}"
    );

    fs::write(dir.path().join("config.json"), "{").unwrap();
    let (succeeded, _, stderr) = run(&["inspect"], &[dir.path()]);
    assert!(
        !succeeded && stderr.contains("config.json is no JSON"),
        "{stderr}"
    );
}

#[test]
fn eval_judges_by_the_reference_and_by_one_it_made() {
    let reference = testdata().join("logits.json");
    let judged = json_of(
        &["eval", "-o", "json", "-t", "2", "-m"],
        &[&model("Q8_0"), Path::new("--logits"), &reference],
    );
    assert_eq!(judged["total"]["positions"], judged["total"]["sameTop"]);
    assert!(judged["total"]["largestDelta"].as_f64().unwrap() < 0.25);
    assert_eq!(judged["texts"][0]["tokenizedAlike"], true);

    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("saved.json");
    let flags = [
        "eval", "-c", "64", "--chunks", "1", "--every", "8", "--top", "16", "-m",
    ];
    let heldout = testdata().join("heldout.txt");
    let model = model("Q8_0");
    let paths: [&Path; 5] = [
        &model,
        Path::new("-f"),
        heldout.as_path(),
        Path::new("--save"),
        saved.as_path(),
    ];
    let (succeeded, _, stderr) = run(&flags, &paths);
    assert!(succeeded, "{stderr}");
    let itself = json_of(
        &["eval", "-o", "json", "-m"],
        &[&model, Path::new("--logits"), &saved],
    );
    assert_eq!(itself["total"]["positions"], 4);
    assert_eq!(itself["total"]["largestDelta"], 0.0);

    fs::write(&saved, "[]x").unwrap();
    let (succeeded, _, stderr) = run(&["eval", "-m"], &[&model, Path::new("--logits"), &saved]);
    assert!(!succeeded && stderr.contains("is no reference"), "{stderr}");
}

#[test]
fn compare_shows_tensors_and_the_text() {
    let (first, second) = (model("Q8_0"), model("Q4_K_M"));
    let (succeeded, table, stderr) = run(&["compare"], &[&first, &second]);
    assert!(succeeded, "{stderr}");
    assert!(table.contains("blk.1.ffn_up_exps.weight"), "{table}");
    assert!(table.contains("tensors hold the same values"), "{table}");
    assert!(!table.contains("perplexity"), "{table}");

    let heldout = testdata().join("heldout.txt");
    let compared = json_of(
        &["compare", "-o", "json", "-c", "64", "--chunks", "1", "-f"],
        &[&heldout, &first, &second],
    );
    assert_eq!(compared["text"]["tokens"], 32);
    assert!(compared["text"]["meanDivergence"].as_f64().unwrap() < 0.1);
    assert!(compared["tensors"].as_array().unwrap().len() > 50);
}

#[test]
fn unknown_words_are_refused_with_those_there_are() {
    for (flag, word, known) in [
        ("--cache-type", "q4_0", "use f16, q8_0 or f32"),
        ("--compat", "ollama", "there is: llama.cpp"),
    ] {
        let (succeeded, _, stderr) = run(&["perplexity", "-m", "x", "-f", "y", flag, word], &[]);
        assert!(!succeeded && stderr.contains(known), "{stderr}");
    }
}

#[test]
fn bench_speaks_as_llama_bench_does() {
    let flags = [
        "bench", "-p", "16,24", "-n", "4", "-d", "8", "-r", "2", "-t", "2",
    ];
    let rows = json_of(
        &[&flags[..], &["-o", "json", "-m"]].concat(),
        &[&model("Q4_K_M")],
    );
    let rows = rows.as_array().unwrap();
    let tests: Vec<_> = rows
        .iter()
        .map(|row| [&row["n_prompt"], &row["n_gen"], &row["n_depth"]].map(|n| n.as_u64().unwrap()))
        .collect();
    assert_eq!(tests, [[16, 0, 8], [24, 0, 8], [0, 4, 8]]);
    for row in rows {
        assert_eq!(row["samples_ts"].as_array().unwrap().len(), 2);
        assert_eq!(row["samples_ns"].as_array().unwrap().len(), 2);
        assert!(row["avg_ts"].as_f64().unwrap() > 0.0);
        assert_eq!(
            (&row["n_threads"], &row["type_k"]),
            (&json!(2), &json!("f16"))
        );
    }
    let (_, table, _) = run(&[&flags[..], &["-m"]].concat(), &[&model("Q4_K_M")]);
    assert!(
        table.contains("pp24 @ d8") && table.contains(" ± "),
        "{table}"
    );
}
