//! A model directory made in a test: a few kilobytes of DeepSeek-V3 shape with known weights.
// Each file of tests uses a part of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine as _;
use serde_json::{Value, json};

/// Two layers (one dense), two heads, four experts.
pub(crate) fn config() -> Value {
    json!({
        "model_type": "deepseek_v3", "vocab_size": 300, "hidden_size": 32, "intermediate_size": 64,
        "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "n_shared_experts": 1,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "routed_scaling_factor": 2.5, "kv_lora_rank": 32,
        "q_lora_rank": 32, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 32, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 1, "norm_topk_prob": true, "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6, "rope_theta": 50000.0, "scoring_func": "sigmoid", "bos_token_id": 260, "eos_token_id": 261,
        "rope_scaling": {"type": "yarn", "factor": 32.0, "beta_fast": 1.0, "beta_slow": 1.0, "mscale": 1.0,
                         "mscale_all_dim": 1.0, "original_max_position_embeddings": 128}
    })
}

/// Tensor names and shapes that belong to [`config`].
pub(crate) fn shapes() -> BTreeMap<String, Vec<u64>> {
    let mut shapes = BTreeMap::new();
    let mut add = |name: &str, shape: &[u64]| shapes.insert(name.to_owned(), shape.to_vec());
    add("model.embed_tokens.weight", &[300, 32]);
    add("lm_head.weight", &[300, 32]);
    add("model.norm.weight", &[32]);
    for layer in 0..2 {
        let mut add =
            |name: &str, shape: &[u64]| add(&format!("model.layers.{layer}.{name}"), shape);
        add("input_layernorm.weight", &[32]);
        add("post_attention_layernorm.weight", &[32]);
        add("self_attn.q_a_proj.weight", &[32, 32]);
        add("self_attn.q_a_layernorm.weight", &[32]);
        add("self_attn.q_b_proj.weight", &[64, 32]);
        add("self_attn.kv_a_proj_with_mqa.weight", &[48, 32]);
        add("self_attn.kv_a_layernorm.weight", &[32]);
        add("self_attn.kv_b_proj.weight", &[96, 32]);
        add("self_attn.o_proj.weight", &[32, 64]);
        if layer == 0 {
            mlp(&mut add, "mlp", 64);
            continue;
        }
        add("mlp.gate.weight", &[4, 32]);
        add("mlp.gate.e_score_correction_bias", &[4]);
        mlp(&mut add, "mlp.shared_experts", 32);
        for expert in 0..4 {
            mlp(&mut add, &format!("mlp.experts.{expert}"), 32);
        }
    }
    shapes
}

fn mlp<R>(add: &mut impl FnMut(&str, &[u64]) -> R, at: &str, width: u64) {
    add(&format!("{at}.gate_proj.weight"), &[width, 32]);
    add(&format!("{at}.up_proj.weight"), &[width, 32]);
    add(&format!("{at}.down_proj.weight"), &[32, width]);
}

/// The weights of a tensor: multiples of 1/64 that depend on the name, exact in every float type.
pub(crate) fn weights(name: &str, count: usize) -> Vec<f32> {
    let mut state = name.bytes().fold(1u32, |hash, byte| {
        hash.wrapping_mul(31).wrapping_add(byte.into())
    });
    let mut weights = Vec::with_capacity(count);
    for _ in 0..count {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        weights.push(((state >> 25) as f32 - 64.0) / 64.0);
    }
    weights
}

/// Writes a safetensors file of BF16 tensors.
pub(crate) fn write_safetensors(path: &Path, shapes: &BTreeMap<String, Vec<u64>>) {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, shape) in shapes {
        let start = data.len();
        let count = shape.iter().product::<u64>() as usize;
        for weight in weights(name, count) {
            data.extend_from_slice(&weight.to_bits().to_le_bytes()[2..]);
        }
        let entry = json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()]});
        header.insert(name.clone(), entry);
    }
    write_raw(path, &Value::Object(header), &data);
}

/// Writes a safetensors file with any header.
pub(crate) fn write_raw(path: &Path, header: &Value, data: &[u8]) {
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(data);
    fs::write(path, bytes).unwrap();
}

/// Writes the whole directory, weights in two files.
pub(crate) fn write_model(dir: &Path) {
    fs::write(dir.join("config.json"), config().to_string()).unwrap();
    let base64 = base64::engine::general_purpose::STANDARD;
    let bytes = (0..=255u8).map(|byte| vec![byte]);
    let pairs = ["th", "the", " the", "in"].map(|token| token.as_bytes().to_vec());
    let ranks: Vec<String> = bytes
        .chain(pairs)
        .enumerate()
        .map(|(rank, token)| format!("{} {rank}\n", base64.encode(token)))
        .collect();
    fs::write(dir.join("tiktoken.model"), ranks.concat()).unwrap();
    let tokenizer = json!({
        "bos_token": "[BOS]", "eos_token": "[EOS]", "pad_token": {"content": "[PAD]"}, "chat_template": "{{ messages }}",
        "added_tokens_decoder": {
            "260": {"content": "[BOS]", "special": true}, "261": {"content": "[EOS]", "special": true},
            "262": {"content": "<|im_end|>", "special": true}, "263": {"content": "<think>", "special": false},
            "299": {"content": "[PAD]", "special": true}
        }
    });
    fs::write(dir.join("tokenizer_config.json"), tokenizer.to_string()).unwrap();
    let (first, second): (BTreeMap<_, _>, BTreeMap<_, _>) = shapes()
        .into_iter()
        .partition(|(name, _)| name.contains("experts"));
    write_safetensors(&dir.join("model-1-of-2.safetensors"), &first);
    write_safetensors(&dir.join("model-2-of-2.safetensors"), &second);
}
