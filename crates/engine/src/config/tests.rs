//! Metadata as Kimi-K2-Instruct's files carry it, changed one key at a time.

use gguf::Value;

use super::*;
use crate::testing::synthetic;

/// Keys of a mainline Kimi-K2-Instruct file, which does not give `yarn_beta_fast`.
fn k2_instruct() -> Metadata {
    let mut metadata = Metadata::new();
    let text = |text: &str| Value::String(text.to_owned());
    for (key, value) in [
        ("general.architecture", text("deepseek2")),
        ("general.name", text("Kimi-K2-Instruct")),
        ("tokenizer.ggml.pre", text("kimi-k2")),
        ("deepseek2.block_count", Value::U32(61)),
        ("deepseek2.context_length", Value::U32(131_072)),
        ("deepseek2.embedding_length", Value::U32(7168)),
        ("deepseek2.feed_forward_length", Value::U32(18_432)),
        ("deepseek2.attention.head_count", Value::U32(64)),
        ("deepseek2.attention.head_count_kv", Value::U32(1)),
        (
            "deepseek2.attention.layer_norm_rms_epsilon",
            Value::F32(1e-6),
        ),
        ("deepseek2.attention.q_lora_rank", Value::U32(1536)),
        ("deepseek2.attention.kv_lora_rank", Value::U32(512)),
        ("deepseek2.attention.key_length", Value::U32(576)),
        ("deepseek2.attention.value_length", Value::U32(512)),
        ("deepseek2.attention.key_length_mla", Value::U32(192)),
        ("deepseek2.attention.value_length_mla", Value::U32(128)),
        ("deepseek2.leading_dense_block_count", Value::U32(1)),
        ("deepseek2.expert_count", Value::U32(384)),
        ("deepseek2.expert_used_count", Value::U32(8)),
        ("deepseek2.expert_shared_count", Value::U32(1)),
        ("deepseek2.expert_feed_forward_length", Value::U32(2048)),
        ("deepseek2.expert_weights_scale", Value::F32(2.827)),
        ("deepseek2.expert_weights_norm", Value::Bool(true)),
        ("deepseek2.expert_gating_func", Value::U32(2)),
        ("deepseek2.rope.dimension_count", Value::U32(64)),
        ("deepseek2.rope.freq_base", Value::F32(50_000.0)),
        ("deepseek2.rope.scaling.type", text("yarn")),
        ("deepseek2.rope.scaling.factor", Value::F32(32.0)),
        (
            "deepseek2.rope.scaling.original_context_length",
            Value::U32(4096),
        ),
        (
            "deepseek2.rope.scaling.yarn_log_multiplier",
            Value::F32(0.1),
        ),
    ] {
        metadata.set(key, value);
    }
    metadata
}

fn with(changes: &[(&str, Value)]) -> Metadata {
    let mut metadata = k2_instruct();
    for (key, value) in changes {
        metadata.set(key, value.clone());
    }
    metadata
}

fn without(key: &str) -> Metadata {
    let mut metadata = Metadata::new();
    for (kept, value) in k2_instruct().iter().filter(|(kept, _)| *kept != key) {
        metadata.set(kept, value.clone());
    }
    metadata
}

#[test]
fn kimi_k2_instruct() {
    let config = Config::read(&k2_instruct()).unwrap();
    assert_eq!(
        (config.nope, config.rope_dim, config.v_head),
        (128, 64, 128)
    );
    assert_eq!(config.kv_row(), 576);
    assert_eq!(config.experts.as_ref().unwrap().gating, Gating::Sigmoid);
    assert!(
        (config.attention_scale() - 0.130_86).abs() < 1e-5,
        "{}",
        config.attention_scale()
    );
}

/// (name, YaRN's factor, epsilon, context, beta_fast) of all revisions, as files without `yarn_beta_fast` have them.
#[test]
fn kimi_k2_in_all_revisions() {
    for (name, factor, eps, context, beta_fast) in [
        ("Kimi-K2-Base", 32.0, 1e-6, 131_072, 1.0),
        ("Kimi-K2-Instruct", 32.0, 1e-6, 131_072, 1.0),
        ("Kimi K2 Instruct 0905", 64.0, 1e-6, 262_144, 1.0),
        ("Kimi K2 Thinking", 64.0, 1e-5, 262_144, 1.0),
        ("kimi-k2-thinking", 64.0, 1e-5, 262_144, 1.0),
        ("Kimi K2.5", 64.0, 1e-5, 262_144, 32.0),
        ("Kimi K2.6", 64.0, 1e-5, 262_144, 32.0),
        ("Kimi-K2.7-Code", 64.0, 1e-5, 262_144, 32.0),
    ] {
        let mut config = Config::read(&with(&[
            ("general.name", Value::String(name.to_owned())),
            ("deepseek2.rope.scaling.factor", Value::F32(factor)),
            (
                "deepseek2.attention.layer_norm_rms_epsilon",
                Value::F32(eps),
            ),
            ("deepseek2.context_length", Value::U32(context)),
        ]))
        .unwrap();
        let yarn = config.rope.yarn.clone().unwrap();
        assert_eq!((yarn.beta_fast, yarn.beta_slow), (beta_fast, 1.0), "{name}");
        assert_eq!((config.rms_eps, config.context), (eps, context), "{name}");

        config.rope.as_llama_cpp_has_it();
        let theirs = config.rope.yarn.unwrap();
        assert_eq!(
            theirs,
            Yarn {
                beta_fast: 32.0,
                ..yarn
            },
            "{name}"
        );
    }
}

/// The layers below the metadata are tested with whole models of these shapes.
#[test]
fn moonlight_and_the_text_model_of_kimi_vl() {
    for shape in [synthetic::MOONLIGHT, synthetic::KIMI_VL] {
        let mut config = Config::read(&shape.draft().metadata).unwrap();
        assert_eq!((config.q_lora, config.layers), (None, 27));
        assert_eq!(config.rope.yarn, None);
        assert_eq!(config.rope.base, shape.rope_base);
        assert_eq!((config.context, config.rms_eps), (shape.context, 1e-5));
        let experts = config.experts.clone().unwrap();
        assert_eq!((experts.shared, experts.scale), (2, 2.446));
        assert_eq!(experts.gating, Gating::Sigmoid);
        // There is nothing that llama.cpp would do differently.
        let unchanged = config.clone();
        config.rope.as_llama_cpp_has_it();
        assert_eq!(config, unchanged);
    }
}

#[test]
fn attention_scale_at_factor_64_and_without_yarn() {
    let metadata = with(&[("deepseek2.rope.scaling.factor", Value::F32(64.0))]);
    assert!((Config::read(&metadata).unwrap().attention_scale() - 0.144_68).abs() < 1e-5);
    let scale = Config::read(&without("deepseek2.rope.scaling.type"))
        .unwrap()
        .attention_scale();
    assert!((scale - 192f32.sqrt().recip()).abs() < 1e-7);
}

#[test]
fn head_sizes_of_legacy_files() {
    let mut metadata = Metadata::new();
    for (key, value) in k2_instruct()
        .iter()
        .filter(|(key, _)| !key.ends_with("_mla"))
    {
        metadata.set(key, value.clone());
    }
    metadata.set("deepseek2.attention.key_length", Value::U32(192));
    metadata.set("deepseek2.attention.value_length", Value::U32(128));
    let config = Config::read(&metadata).unwrap();
    assert_eq!((config.nope, config.v_head), (128, 128));
}

#[test]
fn beta_fast_by_key_or_by_name() {
    let factor = |factor: f32| ("deepseek2.rope.scaling.factor", Value::F32(factor));
    let name = |name: &str| ("general.name", Value::String(name.to_owned()));
    let key = ("deepseek2.rope.scaling.yarn_beta_fast", Value::F32(7.0));
    let other = (
        "tokenizer.ggml.pre",
        Value::String("deepseek-v3".to_owned()),
    );
    for (changes, expected) in [
        (vec![], 1.0),
        (vec![key], 7.0),
        (vec![factor(64.0), name("Kimi-K2-Thinking")], 1.0),
        (vec![factor(64.0), name("Kimi-K2-Instruct-0905")], 1.0),
        (vec![factor(64.0), name("Kimi-K2.5")], 32.0),
        (vec![factor(40.0), name("DeepSeek-V3"), other.clone()], 32.0),
        (vec![other], 32.0),
    ] {
        let config = Config::read(&with(&changes)).unwrap();
        assert_eq!(config.rope.yarn.unwrap().beta_fast, expected, "{changes:?}");
    }
}

#[test]
fn errors_name_what_is_wrong() {
    let check = |metadata: &Metadata, words: &[&str]| {
        let error = Config::read(metadata).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    let llama = [("general.architecture", Value::String("llama".to_owned()))];
    check(&with(&llama), &["'llama'", "deepseek2"]);
    for (key, _) in k2_instruct().iter() {
        let optional = [
            "general.name",
            "tokenizer.ggml.pre",
            "deepseek2.attention.head_count_kv",
        ];
        let by_default = [
            "shared", "weights", "gating", "_mla", "_length", "q_lora", "scaling",
        ];
        let is_optional = optional.contains(&key)
            || by_default.iter().any(|part| key.contains(part))
            || key.contains("leading_dense");
        if !is_optional {
            check(&without(key), &[key, "missing"]);
        }
    }
    for (key, value) in [
        ("deepseek2.block_count", Value::U32(0)),
        ("deepseek2.block_count", Value::U32(u32::MAX)),
        ("deepseek2.embedding_length", Value::U64(u64::MAX)),
        ("deepseek2.rope.dimension_count", Value::U32(63)),
        ("deepseek2.attention.key_length_mla", Value::U32(64)),
        ("deepseek2.expert_used_count", Value::U32(385)),
        ("deepseek2.expert_gating_func", Value::U32(9)),
        ("deepseek2.expert_group_count", Value::U32(8)),
        ("deepseek2.rope.freq_base", Value::F32(f32::NAN)),
        ("deepseek2.rope.scaling.factor", Value::F32(0.0)),
        ("deepseek2.leading_dense_block_count", Value::U32(62)),
    ] {
        check(&with(&[(key, value)]), &[key]);
    }
}
