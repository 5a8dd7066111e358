//! A small model directory converted: metadata, names, shapes, and every weight in its place; and one test per way a
//! directory can be wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{config, shapes, weights, write_model, write_raw, write_safetensors};
use convert::{Error, from_safetensors};
use gguf::{Dtype, Header, open_header};
use serde_json::{Value, json};
use tempfile::TempDir;

fn model() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path());
    dir
}

fn convert(dir: &Path, dtype: Dtype) -> Result<PathBuf, Error> {
    let out = dir.join("out.gguf");
    from_safetensors(dir, "Micro", dtype, &out, &mut |_, _, _| {})?;
    Ok(out)
}

fn fails(dir: &Path) -> String {
    let error = convert(dir, Dtype::F16).unwrap_err().to_string();
    let left: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("out.gguf"))
        .collect();
    assert!(left.is_empty(), "{left:?} left behind");
    error
}

/// A tensor's values, decoded.
fn values(path: &Path, header: &Header, name: &str) -> Vec<f32> {
    let tensor = header.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let file = fs::read(path).unwrap();
    let start = (header.data_offset + tensor.offset) as usize;
    let row = tensor
        .dtype
        .row_bytes(tensor.row_values() as usize)
        .unwrap();
    let mut values = vec![0.0; tensor.values() as usize];
    let rows = file[start..start + tensor.bytes as usize].chunks(row);
    for (row, values) in rows.zip(values.chunks_mut(tensor.row_values() as usize)) {
        (quant::kernels(tensor.dtype).unwrap().dequantize)(row, values);
    }
    values
}

#[test]
fn plain_tensors_keep_their_values() {
    let dir = model();
    for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let path = convert(dir.path(), dtype).unwrap();
        let header = open_header(&path).unwrap();
        for (output, source) in [
            ("token_embd.weight", "model.embed_tokens.weight"),
            ("output.weight", "lm_head.weight"),
            ("output_norm.weight", "model.norm.weight"),
            (
                "blk.0.ffn_down.weight",
                "model.layers.0.mlp.down_proj.weight",
            ),
            (
                "blk.1.attn_q_b.weight",
                "model.layers.1.self_attn.q_b_proj.weight",
            ),
            (
                "blk.1.ffn_gate_inp.weight",
                "model.layers.1.mlp.gate.weight",
            ),
            (
                "blk.1.exp_probs_b.bias",
                "model.layers.1.mlp.gate.e_score_correction_bias",
            ),
            (
                "blk.1.ffn_up_shexp.weight",
                "model.layers.1.mlp.shared_experts.up_proj.weight",
            ),
        ] {
            let found = values(&path, &header, output);
            assert_eq!(found, weights(source, found.len()), "{output} as {dtype}");
        }
    }
}

#[test]
fn experts_are_stacked_in_order() {
    let dir = model();
    let path = convert(dir.path(), Dtype::F32).unwrap();
    let header = open_header(&path).unwrap();
    assert_eq!(
        header.tensor("blk.1.ffn_gate_exps.weight").unwrap().dims,
        [32, 32, 4]
    );
    let stacked = values(&path, &header, "blk.1.ffn_down_exps.weight");
    for (expert, found) in stacked.chunks(32 * 32).enumerate() {
        let source = format!("model.layers.1.mlp.experts.{expert}.down_proj.weight");
        assert_eq!(found, weights(&source, 32 * 32));
    }
}

/// kv_b's rows are, per head, 16 of the key (transposed in k_b) and 32 of the value.
#[test]
fn keys_are_transposed_and_values_split_off() {
    let dir = model();
    let path = convert(dir.path(), Dtype::F32).unwrap();
    let header = open_header(&path).unwrap();
    let kv_b = weights("model.layers.0.self_attn.kv_b_proj.weight", 96 * 32);
    let k_b = values(&path, &header, "blk.0.attn_k_b.weight");
    let v_b = values(&path, &header, "blk.0.attn_v_b.weight");
    assert_eq!(
        header.tensor("blk.0.attn_k_b.weight").unwrap().dims,
        [16, 32, 2]
    );
    assert_eq!(
        header.tensor("blk.0.attn_v_b.weight").unwrap().dims,
        [32, 32, 2]
    );
    for head in 0..2 {
        for latent in 0..32 {
            for key in 0..16 {
                assert_eq!(
                    k_b[(head * 32 + latent) * 16 + key],
                    kv_b[(head * 48 + key) * 32 + latent]
                );
            }
            for value in 0..32 {
                assert_eq!(
                    v_b[(head * 32 + value) * 32 + latent],
                    kv_b[(head * 48 + 16 + value) * 32 + latent]
                );
            }
        }
    }
}

#[test]
fn types_fall_back_where_they_must() {
    let dir = model();
    for dtype in [
        Dtype::Q8_0,
        Dtype::Q5_0,
        Dtype::Q5_1,
        Dtype::Q4_0,
        Dtype::Q4_1,
    ] {
        let header = open_header(&convert(dir.path(), dtype).unwrap()).unwrap();
        let stored = |name: &str| header.tensor(name).unwrap().dtype;
        assert_eq!(stored("blk.1.ffn_up_exps.weight"), dtype);
        assert_eq!(
            stored("blk.1.attn_k_b.weight"),
            Dtype::F16,
            "rows of 16 are not whole blocks"
        );
        assert_eq!(stored("blk.1.ffn_gate_inp.weight"), Dtype::F32);
        assert_eq!(stored("blk.1.exp_probs_b.bias"), Dtype::F32);
        assert_eq!(stored("blk.1.attn_norm.weight"), Dtype::F32);
    }
    assert!(matches!(
        convert(dir.path(), Dtype::Q4_K),
        Err(Error::TargetType(Dtype::Q4_K))
    ));
}

/// The keys and the tensor names are those of llama.cpp's converter, whose file is in testdata.
#[test]
fn the_layout_is_mainlines() {
    let dir = model();
    let ours = open_header(&convert(dir.path(), Dtype::Q8_0).unwrap()).unwrap();
    let mut keys: Vec<&str> = ours.metadata.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();

    let theirs = testdata("Q8_0");
    let theirs: Vec<Header> = theirs
        .iter()
        .map(|path| open_header(path).unwrap())
        .collect();
    let extra = |key: &str| key.starts_with("split.") || key.starts_with("quantize.");
    let mut expected: Vec<&str> = theirs[0]
        .metadata
        .iter()
        .map(|(key, _)| key)
        .filter(|key| !extra(key))
        .collect();
    expected.sort_unstable();
    assert_eq!(keys, expected);
    for (key, value) in ours.metadata.iter() {
        let their = theirs[0].metadata.get(key).unwrap();
        assert_eq!(
            std::mem::discriminant(value),
            std::mem::discriminant(their),
            "type of {key}"
        );
    }
    let mut names: Vec<&str> = ours
        .tensors
        .iter()
        .map(|tensor| tensor.name.as_str())
        .collect();
    names.sort_unstable();
    let two_layers = |name: &str| !name.starts_with("blk.2.") && !name.starts_with("blk.3.");
    let tensors = theirs.iter().flat_map(|header| &header.tensors);
    let mut expected: Vec<&str> = tensors
        .map(|tensor| tensor.name.as_str())
        .filter(|name| two_layers(name))
        .collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

fn testdata(quant: &str) -> Vec<PathBuf> {
    let hub = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../testdata/hub/kimi-operator/Kimi-Tiny-GGUF");
    gguf::shard::find_shards(&hub.join(quant)).unwrap()
}

#[test]
fn hyperparameters_and_vocabulary() {
    let dir = model();
    let header = open_header(&convert(dir.path(), Dtype::F16).unwrap()).unwrap();
    let metadata = &header.metadata;
    for (key, value) in [
        ("deepseek2.attention.head_count_kv", 1),
        ("deepseek2.attention.key_length", 48),
        ("deepseek2.attention.value_length", 32),
        ("deepseek2.attention.key_length_mla", 32),
        ("deepseek2.attention.value_length_mla", 32),
        ("deepseek2.expert_gating_func", 2),
        ("deepseek2.rope.scaling.original_context_length", 128),
        ("tokenizer.ggml.bos_token_id", 260),
        ("tokenizer.ggml.eos_token_id", 262),
        ("tokenizer.ggml.padding_token_id", 299),
        ("general.file_type", 1),
    ] {
        assert_eq!(metadata.get_u32(key), Ok(value), "{key}");
    }
    assert_eq!(
        metadata.get_f32("deepseek2.rope.scaling.yarn_log_multiplier"),
        Ok(0.1)
    );
    assert_eq!(
        metadata.get_f32("deepseek2.rope.scaling.yarn_beta_fast"),
        Ok(1.0)
    );
    assert_eq!(metadata.get_str("general.name"), Ok("Micro"));
    let tokens = metadata.get_strings("tokenizer.ggml.tokens").unwrap();
    assert_eq!(tokens.len(), 300);
    assert_eq!(
        [&tokens[258], &tokens[262], &tokens[264]],
        ["Ġthe", "<|im_end|>", "<|reserved_token_264|>"]
    );
    let types = metadata.get_i32s("tokenizer.ggml.token_type").unwrap();
    assert_eq!(
        [types[258], types[262], types[263], types[264]],
        [1, 3, 4, 3]
    );
    assert_eq!(
        metadata.get_strings("tokenizer.ggml.merges").unwrap(),
        ["t h", "th e", "Ġ the", "i n"]
    );
}

/// Moonlight has neither a query rank nor rope scaling.
#[test]
fn without_query_rank_and_rope_scaling() {
    let dir = model();
    let mut config = config();
    config["q_lora_rank"] = Value::Null;
    config["rope_scaling"] = Value::Null;
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let mut shapes = shapes();
    shapes.retain(|name, _| !name.contains(".q_"));
    for layer in 0..2 {
        shapes.insert(
            format!("model.layers.{layer}.self_attn.q_proj.weight"),
            vec![64, 32],
        );
    }
    fs::remove_file(dir.path().join("model-1-of-2.safetensors")).unwrap();
    write_safetensors(&dir.path().join("model-2-of-2.safetensors"), &shapes);
    let header = open_header(&convert(dir.path(), Dtype::F16).unwrap()).unwrap();
    assert_eq!(header.tensor("blk.0.attn_q.weight").unwrap().dims, [32, 64]);
    assert!(header.tensor("blk.0.attn_q_a.weight").is_none());
    assert_eq!(header.metadata.get("deepseek2.rope.scaling.type"), None);
    assert_eq!(header.metadata.get("deepseek2.attention.q_lora_rank"), None);
}

#[test]
fn missing_unknown_and_misshapen_tensors() {
    let dir = model();
    let path = dir.path().join("model-2-of-2.safetensors");
    let mut all = shapes();
    all.retain(|name, _| !name.contains("experts"));

    let mut without = all.clone();
    without.remove("model.norm.weight");
    write_safetensors(&path, &without);
    assert!(fails(dir.path()).contains("'model.norm.weight' is missing"));

    let mut with = all.clone();
    with.insert("model.layers.0.mystery".into(), vec![1]);
    write_safetensors(&path, &with);
    assert!(fails(dir.path()).contains("'model.layers.0.mystery' is not part"));

    let mut with = all.clone();
    with.insert("model.layers.2.eh_proj.weight".into(), vec![1]);
    with.insert(
        "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
        vec![1],
    );
    write_safetensors(&path, &with);
    convert(dir.path(), Dtype::F16).unwrap();
    fs::remove_file(dir.path().join("out.gguf")).unwrap();

    let mut wrong = all.clone();
    wrong.insert("lm_head.weight".into(), vec![299, 32]);
    write_safetensors(&path, &wrong);
    assert!(fails(dir.path()).contains("shape [299, 32] where config.json asks for [300, 32]"));
}

#[test]
fn broken_safetensors() {
    let dir = model();
    let path = dir.path().join("model-2-of-2.safetensors");
    let entry = |dtype: &str, offsets: [u64; 2]| json!({"x": {"dtype": dtype, "shape": [2], "data_offsets": offsets}});
    fs::write(&path, b"1234").unwrap();
    assert!(fails(dir.path()).contains("too short"));
    fs::write(&path, u64::MAX.to_le_bytes()).unwrap();
    assert!(fails(dir.path()).contains("announces a header"));
    fs::write(&path, [&4u64.to_le_bytes()[..], b"nope"].concat()).unwrap();
    assert!(fails(dir.path()).contains("model-2-of-2.safetensors: expected"));
    for offsets in [[0, 5], [3, 2], [u64::MAX - 1, u64::MAX]] {
        write_raw(&path, &entry("BF16", offsets), &[0; 4]);
        assert!(
            fails(dir.path()).contains("outside the file"),
            "{offsets:?}"
        );
    }
    write_raw(&path, &entry("F32", [0, 4]), &[0; 4]);
    assert!(fails(dir.path()).contains("does not have 4 bytes"));
    fs::copy(dir.path().join("model-1-of-2.safetensors"), &path).unwrap();
    assert!(fails(dir.path()).contains("in another file too"));
}

#[test]
fn types_that_cannot_be_read_and_values_that_are_not_finite() {
    let dir = model();
    let path = dir.path().join("model-2-of-2.safetensors");
    let mut all = shapes();
    all.retain(|name, _| !name.contains("experts") && name != "model.norm.weight");
    write_safetensors(&path, &all);
    let norm = dir.path().join("norm.safetensors");
    let header = |dtype: &str, bytes: u64| json!({"model.norm.weight": {"dtype": dtype, "shape": [32], "data_offsets": [0, bytes]}});
    write_raw(&norm, &header("F8_E4M3", 32), &[0; 32]);
    assert!(fails(dir.path()).contains("'model.norm.weight' is stored as F8_E4M3"));
    write_raw(&norm, &header("BF16", 64), &[0xff; 64]);
    assert!(fails(dir.path()).contains("'output_norm.weight' holds values that are not finite"));
}

#[test]
fn impossible_configurations() {
    let dir = model();
    for (field, value, complaint) in [
        ("model_type", json!("llama"), "model_type 'llama'"),
        ("hidden_size", json!(0), "hidden_size is 0"),
        (
            "num_hidden_layers",
            json!(100_000),
            "num_hidden_layers is 100000",
        ),
        (
            "num_experts_per_tok",
            json!(5),
            "num_experts_per_tok is 5 of 4",
        ),
        ("attention_bias", json!(true), "attention_bias"),
        ("scoring_func", json!("relu"), "scoring_func 'relu'"),
        ("kv_lora_rank", json!("many"), "config.json: invalid type"),
        ("vocab_size", json!(259), "260 ranks in a vocabulary of 259"),
        ("vocab_size", json!(290), "added token id '299'"),
    ] {
        let mut config = config();
        config[field] = value;
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let error = fails(dir.path());
        assert!(error.contains(complaint), "{field}: {error}");
    }
    for (field, value, complaint) in [
        ("type", json!("linear"), "'linear' is not yarn"),
        ("mscale", json!(0.5), "mscale 0.5 differs"),
    ] {
        let mut config = config();
        config["rope_scaling"][field] = value;
        fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
        let error = fails(dir.path());
        assert!(error.contains(complaint), "{field}: {error}");
    }
}

#[test]
fn missing_and_broken_side_files() {
    let dir = model();
    fs::write(dir.path().join("tiktoken.model"), "AA== 0\nAQ== 2\n").unwrap();
    assert!(fails(dir.path()).contains("line 2 is not a base64 token and the rank 1"));
    fs::remove_file(dir.path().join("tiktoken.model")).unwrap();
    assert!(fails(dir.path()).contains("tiktoken.model"));
    let empty = tempfile::tempdir().unwrap();
    assert!(fails(empty.path()).contains("config.json"));
}
