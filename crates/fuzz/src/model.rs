//! Whole models: a small sound one with what the input changes of its metadata and tensors, loaded and run. The file is
//! well formed, so that the numbers in it are all that can be wrong.

use std::fs;

use engine::{ActivationType, Bench, Options, Progress, Work, tokenizer::Vocabulary};
use gguf::{Array, Dtype, Metadata, TensorSpec, Value, Writer};

pub(crate) const WORDS: &[&str] = &[
    "\nu ",
    "\nf ",
    "\ns ",
    "\nb ",
    "\nx ",
    "\nt ",
    "\nd ",
    " 0",
    " 1",
    " 2",
    " 31",
    " 32",
    " 33",
    " 64",
    " 256",
    " 4294967295",
    " 16777216",
    " -1",
    " nan",
    " inf",
    " 1e-30",
    " 1e30",
    "general.architecture",
    "split.count",
    "deepseek2.block_count",
    "deepseek2.context_length",
    "deepseek2.embedding_length",
    "deepseek2.feed_forward_length",
    "deepseek2.leading_dense_block_count",
    "deepseek2.vocab_size",
    "deepseek2.attention.head_count",
    "deepseek2.attention.head_count_kv",
    "deepseek2.attention.kv_lora_rank",
    "deepseek2.attention.q_lora_rank",
    "deepseek2.attention.key_length",
    "deepseek2.attention.value_length",
    "deepseek2.attention.key_length_mla",
    "deepseek2.attention.value_length_mla",
    "deepseek2.attention.layer_norm_rms_epsilon",
    "deepseek2.rope.dimension_count",
    "deepseek2.rope.freq_base",
    "deepseek2.rope.scaling.type yarn",
    "deepseek2.rope.scaling.factor",
    "deepseek2.rope.scaling.original_context_length",
    "deepseek2.rope.scaling.yarn_beta_fast",
    "deepseek2.rope.scaling.yarn_log_multiplier",
    "deepseek2.expert_count",
    "deepseek2.expert_used_count",
    "deepseek2.expert_shared_count",
    "deepseek2.expert_feed_forward_length",
    "deepseek2.expert_weights_scale",
    "deepseek2.expert_weights_norm",
    "deepseek2.expert_gating_func",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.chat_template {{ messages[0].content }}",
    "token_embd.weight",
    "output.weight",
    "output_norm.weight",
    "blk.0.attn_q.weight",
    "blk.0.attn_q_a.weight",
    "blk.0.attn_q_a_norm.weight",
    "blk.0.attn_q_b.weight",
    "blk.0.attn_kv_a_mqa.weight",
    "blk.0.attn_kv_a_norm.weight",
    "blk.0.attn_k_b.weight",
    "blk.0.attn_v_b.weight",
    "blk.0.attn_kv_b.weight",
    "blk.0.attn_output.weight",
    "blk.0.ffn_gate.weight",
    "blk.0.ffn_down.weight",
    "blk.1.ffn_gate_inp.weight",
    "blk.1.exp_probs_b.bias",
    "blk.1.ffn_gate_exps.weight",
    "blk.1.ffn_up_exps.weight",
    "blk.1.ffn_gate_up_exps.weight",
    "blk.1.ffn_down_exps.weight",
    "blk.1.ffn_gate.0.weight",
    "blk.1.ffn_gate_shexp.weight",
    " F32",
    " F16",
    " BF16",
    " Q8_0",
    " Q4_K",
    " Q6_K",
    " IQ1_S",
    " IQ4_KS",
    " I8",
    " MXFP4",
    " TQ2_0",
];

/// Largest tensor that is written.
const LARGEST: u64 = 256 << 10;

const HIDDEN: u64 = 32;
const HEADS: u64 = 2;
const KV_LORA: u64 = 32;
const NOPE: u64 = 32;
const ROPE: u64 = 32;
const V_HEAD: u64 = 32;
const FF: u64 = 32;
const EXPERTS: u64 = 4;

const SPECIAL: [&str; 5] = [
    "[EOS]",
    "<|im_end|>",
    "<|im_user|>",
    "<|im_assistant|>",
    "<|im_middle|>",
];

pub(crate) fn run(bytes: &[u8]) {
    let mut draft = Draft::sound();
    for line in String::from_utf8_lossy(bytes).lines() {
        draft.change(line);
    }
    let Some(file) = draft.bytes() else {
        return;
    };
    let path = tempfile::Builder::new()
        .suffix(".gguf")
        .tempfile()
        .expect("there is room for a file")
        .into_temp_path();
    fs::write(&path, file).expect("there is room for a file");
    for activations in [ActivationType::F32, ActivationType::Int8] {
        let options = Options {
            threads: Some(1),
            context: Some(8),
            activations,
            ..Options::new(&path)
        };
        match Bench::load(&options, &Progress::new()) {
            Ok(bench) => {
                let work = Work {
                    depth: 1,
                    prompt: 2,
                    generate: 2,
                };
                if let Err(error) = bench.run(work) {
                    assert!(!error.to_string().is_empty());
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

struct Draft {
    metadata: Metadata,
    tensors: Vec<TensorSpec>,
}

impl Draft {
    /// Two layers, of which the second has experts.
    fn sound() -> Self {
        let mut draft = Self {
            metadata: metadata(),
            tensors: Vec::new(),
        };
        let vocab = 256 + SPECIAL.len() as u64;
        draft.add("token_embd.weight", &[HIDDEN, vocab]);
        draft.add("output_norm.weight", &[HIDDEN]);
        for layer in 0..2 {
            for (name, dims) in [
                ("attn_norm.weight", &[HIDDEN][..]),
                ("attn_q.weight", &[HIDDEN, HEADS * (NOPE + ROPE)]),
                ("attn_kv_a_mqa.weight", &[HIDDEN, KV_LORA + ROPE]),
                ("attn_kv_a_norm.weight", &[KV_LORA]),
                ("attn_k_b.weight", &[NOPE, KV_LORA, HEADS]),
                ("attn_v_b.weight", &[KV_LORA, V_HEAD, HEADS]),
                ("attn_output.weight", &[HEADS * V_HEAD, HIDDEN]),
                ("ffn_norm.weight", &[HIDDEN]),
            ] {
                draft.add(&format!("blk.{layer}.{name}"), dims);
            }
        }
        for (name, dims) in [
            ("blk.0.ffn_gate.weight", &[HIDDEN, FF][..]),
            ("blk.0.ffn_up.weight", &[HIDDEN, FF]),
            ("blk.0.ffn_down.weight", &[FF, HIDDEN]),
            ("blk.1.ffn_gate_inp.weight", &[HIDDEN, EXPERTS]),
            ("blk.1.ffn_gate_exps.weight", &[HIDDEN, FF, EXPERTS]),
            ("blk.1.ffn_up_exps.weight", &[HIDDEN, FF, EXPERTS]),
            ("blk.1.ffn_down_exps.weight", &[FF, HIDDEN, EXPERTS]),
            ("blk.1.ffn_gate_shexp.weight", &[HIDDEN, FF]),
            ("blk.1.ffn_up_shexp.weight", &[HIDDEN, FF]),
            ("blk.1.ffn_down_shexp.weight", &[FF, HIDDEN]),
        ] {
            draft.add(name, dims);
        }
        draft
    }

    fn add(&mut self, name: &str, dims: &[u64]) {
        self.tensors.push(TensorSpec {
            name: name.to_owned(),
            dims: dims.to_vec(),
            dtype: if dims.len() == 1 {
                Dtype::F32
            } else {
                Dtype::Q8_0
            },
        });
    }

    /// `u key number`, `f key float`, `s key text`, `b key` for yes; `x key` takes one away; `t name type dimension…` for
    /// a tensor and `d name` to drop it.
    fn change(&mut self, line: &str) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let value = match kind {
            "u" => value.parse().map(Value::U32).ok(),
            "f" => value.parse().map(Value::F32).ok(),
            "s" => Some(Value::String(value.to_owned())),
            "b" => Some(Value::Bool(true)),
            "x" => {
                let mut kept = Metadata::new();
                for (key, value) in self.metadata.iter().filter(|(key, _)| *key != name) {
                    kept.set(key, value.clone());
                }
                self.metadata = kept;
                None
            }
            "t" | "d" => {
                self.tensors.retain(|tensor| tensor.name != name);
                self.tensors.extend(tensor(name, value));
                None
            }
            _ => None,
        };
        if let Some(value) = value {
            self.metadata.set(name, value);
        }
    }

    /// The file; nothing where the writer refuses it.
    fn bytes(&self) -> Option<Vec<u8>> {
        let mut writer = Writer::new(Vec::new(), &self.metadata, &self.tensors).ok()?;
        for tensor in &self.tensors {
            let bytes = tensor.dtype.tensor_bytes(&tensor.dims)?;
            // Small floats in every type, and no two rows alike.
            let data: Vec<u8> = (0..bytes).map(|at| (at % 61) as u8).collect();
            writer.append(&tensor.name, &data).ok()?;
        }
        writer.finish().ok()
    }
}

fn tensor(name: &str, words: &str) -> Option<TensorSpec> {
    let mut words = words.split(' ').filter(|word| !word.is_empty());
    let dtype = words.next()?;
    let dtype = *Dtype::ALL.iter().find(|known| known.name() == dtype)?;
    let dims: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    let bytes = dtype.tensor_bytes(&dims)?;
    (bytes <= LARGEST).then(|| TensorSpec {
        name: name.to_owned(),
        dims,
        dtype,
    })
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    let vocabulary = Vocabulary::bytes(&SPECIAL);
    let kind = |special: bool| if special { 3 } else { 1 };
    let types = vocabulary.special.into_iter().map(kind).collect();
    let strings = |list: Vec<String>| Value::Array(Array::String(list));
    for (key, value) in [
        ("general.architecture", Value::String("deepseek2".into())),
        ("general.name", Value::String("Kimi".into())),
        ("tokenizer.ggml.model", Value::String("gpt2".into())),
        ("tokenizer.ggml.pre", Value::String("kimi-k2".into())),
        ("tokenizer.ggml.tokens", strings(vocabulary.tokens)),
        ("tokenizer.ggml.token_type", Value::Array(Array::I32(types))),
        ("tokenizer.ggml.merges", strings(Vec::new())),
        (
            "deepseek2.attention.layer_norm_rms_epsilon",
            Value::F32(1e-6),
        ),
        ("deepseek2.rope.freq_base", Value::F32(50_000.0)),
        ("deepseek2.expert_weights_scale", Value::F32(2.5)),
        ("deepseek2.expert_weights_norm", Value::Bool(true)),
    ] {
        metadata.set(key, value);
    }
    for (key, size) in [
        ("block_count", 2),
        ("context_length", 64),
        ("embedding_length", HIDDEN),
        ("feed_forward_length", FF),
        ("leading_dense_block_count", 1),
        ("attention.head_count", HEADS),
        ("attention.kv_lora_rank", KV_LORA),
        ("attention.key_length", KV_LORA + ROPE),
        ("attention.value_length", KV_LORA),
        ("attention.key_length_mla", NOPE + ROPE),
        ("attention.value_length_mla", V_HEAD),
        ("rope.dimension_count", ROPE),
        ("expert_count", EXPERTS),
        ("expert_used_count", 2),
        ("expert_shared_count", 1),
        ("expert_feed_forward_length", FF),
        ("expert_gating_func", 2),
    ] {
        // Sizes here are small.
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        metadata.set(&format!("deepseek2.{key}"), Value::U32(size));
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else nothing but the first check would ever be reached.
    #[test]
    fn the_unchanged_model_runs() {
        let file = Draft::sound().bytes().expect("the draft can be written");
        let path = tempfile::Builder::new().suffix(".gguf").tempfile();
        let path = path.expect("there is room").into_temp_path();
        fs::write(&path, file).expect("there is room");
        let bench = Bench::load(&Options::new(&path), &Progress::new());
        let work = Work {
            prompt: 2,
            ..Work::default()
        };
        bench
            .and_then(|bench| bench.run(work))
            .expect("a sound model runs");
    }
}
