//! Small models of random weights in the shapes that Kimi models come in: what the trained one does not have.
//! Compiled for tests only.

use gguf::{Dtype, Value};

use super::{Draft, kimi_tiny, noise};

/// Sizes of a model to make up.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) layers: usize,
    pub(crate) q_lora: Option<usize>,
    pub(crate) shared: usize,
    pub(crate) scale: f32,
    pub(crate) rms_eps: f32,
    pub(crate) rope_base: f32,
    /// YaRN's factor, as Kimi-K2 has it over 4,096 tokens.
    pub(crate) yarn: Option<f32>,
    pub(crate) context: u32,
    pub(crate) layout: Layout,
}

/// How a file keeps the weights that lead to keys and values of attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// k_b and v_b, a matrix for each head.
    PerHead,
    /// Both in one tensor, as files of before April 2025 have them.
    Legacy,
    /// As ik_llama.cpp's converter writes them: the one tensor, and k_b and v_b beside it with heads and rows as one
    /// dimension.
    TwoDimensions,
}

/// 27 layers, no compressed queries, two shared experts, no scaling of positions.
pub(crate) const MOONLIGHT: Shape = Shape {
    name: "Moonlight-like",
    layers: 27,
    q_lora: None,
    shared: 2,
    scale: 2.446,
    rms_eps: 1e-5,
    rope_base: 50_000.0,
    yarn: None,
    context: 8192,
    layout: Layout::PerHead,
};

/// The text model of Kimi-VL: Moonlight with slower rotations.
pub(crate) const KIMI_VL: Shape = Shape {
    name: "Kimi-VL-like",
    rope_base: 800_000.0,
    context: 131_072,
    ..MOONLIGHT
};

/// Kimi-K2.5: factor 64.
pub(crate) const KIMI_K2_5: Shape = Shape {
    name: "Kimi-K2.5-like",
    layers: 3,
    q_lora: Some(48),
    shared: 1,
    scale: 2.827,
    rms_eps: 1e-5,
    rope_base: 50_000.0,
    yarn: Some(64.0),
    context: 262_144,
    layout: Layout::PerHead,
};

/// A file of an older converter.
pub(crate) const LEGACY: Shape = Shape {
    name: "Kimi-K2.5-like-legacy",
    layout: Layout::Legacy,
    ..KIMI_K2_5
};

/// A file of ik_llama.cpp's converter.
pub(crate) const TWO_DIMENSIONS: Shape = Shape {
    name: "Kimi-K2.5-like-2d",
    layout: Layout::TwoDimensions,
    ..KIMI_K2_5
};

/// The same with Moonlight's sizes.
pub(crate) const MOONLIGHT_TWO_DIMENSIONS: Shape = Shape {
    name: "Moonlight-like-2d",
    layout: Layout::TwoDimensions,
    ..MOONLIGHT
};

/// All that llama.cpp reads.
pub(crate) const ALL: [Shape; 4] = [MOONLIGHT, KIMI_VL, KIMI_K2_5, LEGACY];

/// Those it does not, each with one that has the same weights in a layout it reads.
pub(crate) const OURS: [(Shape, Shape); 2] = [
    (TWO_DIMENSIONS, KIMI_K2_5),
    (MOONLIGHT_TWO_DIMENSIONS, MOONLIGHT),
];

const HIDDEN: usize = 64;
const HEADS: usize = 4;
const KV_LORA: usize = 64;
const NOPE: usize = 32;
const ROPE: usize = 32;
const V_HEAD: usize = 32;
const DENSE_FF: usize = 96;
const EXPERTS: usize = 8;
const USED: usize = 3;
const EXPERT_FF: usize = 32;
/// The vocabulary of the trained model, whose tokenizer these have.
const VOCAB: usize = 4096;

impl Shape {
    /// The model in F32.
    pub(crate) fn draft(&self) -> Draft {
        let mut draft = Draft {
            metadata: gguf::Metadata::new(),
            tensors: Vec::new(),
        };
        let trained = Draft::read(&kimi_tiny("Q4_K_M"));
        let kept = |key: &str| key.starts_with("tokenizer.") || key == "general.architecture";
        for (key, value) in trained.metadata.iter().filter(|(key, _)| kept(key)) {
            draft.metadata.set(key, value.clone());
        }
        self.metadata(&mut draft);
        let mut tensors = Tensors { draft, count: 0 };
        tensors.add("token_embd.weight", &[HIDDEN, VOCAB]);
        tensors.add("output_norm.weight", &[HIDDEN]);
        tensors.add("output.weight", &[HIDDEN, VOCAB]);
        for layer in 0..self.layers {
            self.layer(&mut tensors, layer);
        }
        if self.layout == Layout::TwoDimensions {
            for layer in 0..self.layers {
                tensors.draft.add_kv_b(layer, HEADS);
            }
        }
        tensors.draft
    }

    fn metadata(&self, draft: &mut Draft) {
        let mut set = |key: &str, value: Value| {
            draft.metadata.set(&format!("deepseek2.{key}"), value);
        };
        let sizes = [
            ("block_count", self.layers),
            ("context_length", self.context as usize),
            ("embedding_length", HIDDEN),
            ("feed_forward_length", DENSE_FF),
            ("leading_dense_block_count", 1),
            ("vocab_size", VOCAB),
            ("attention.head_count", HEADS),
            ("attention.kv_lora_rank", KV_LORA),
            ("rope.dimension_count", ROPE),
            ("expert_count", EXPERTS),
            ("expert_used_count", USED),
            ("expert_shared_count", self.shared),
            ("expert_feed_forward_length", EXPERT_FF),
            ("expert_gating_func", 2),
        ];
        let attention = if self.layout != Layout::PerHead {
            vec![
                ("attention.head_count_kv", HEADS),
                ("attention.key_length", NOPE + ROPE),
                ("attention.value_length", V_HEAD),
            ]
        } else {
            vec![
                ("attention.head_count_kv", 1),
                ("attention.key_length", KV_LORA + ROPE),
                ("attention.value_length", KV_LORA),
                ("attention.key_length_mla", NOPE + ROPE),
                ("attention.value_length_mla", V_HEAD),
            ]
        };
        let q_lora = self.q_lora.map(|rank| ("attention.q_lora_rank", rank));
        for (key, size) in sizes.into_iter().chain(attention).chain(q_lora) {
            set(key, Value::U32(size as u32));
        }
        set("attention.layer_norm_rms_epsilon", Value::F32(self.rms_eps));
        set("expert_weights_scale", Value::F32(self.scale));
        set("expert_weights_norm", Value::Bool(true));
        set("rope.freq_base", Value::F32(self.rope_base));
        if let Some(factor) = self.yarn {
            set("rope.scaling.type", Value::String("yarn".to_owned()));
            set("rope.scaling.factor", Value::F32(factor));
            set("rope.scaling.original_context_length", Value::U32(4096));
            set("rope.scaling.yarn_log_multiplier", Value::F32(0.1));
        }
        let name = Value::String(self.name.to_owned());
        draft.metadata.set("general.name", name);
    }

    fn layer(&self, tensors: &mut Tensors, layer: usize) {
        let mut add = |name: &str, dims: &[usize]| {
            tensors.add(&format!("blk.{layer}.{name}"), dims);
        };
        let queries = HEADS * (NOPE + ROPE);
        add("attn_norm.weight", &[HIDDEN]);
        match self.q_lora {
            None => add("attn_q.weight", &[HIDDEN, queries]),
            Some(rank) => {
                add("attn_q_a.weight", &[HIDDEN, rank]);
                add("attn_q_a_norm.weight", &[rank]);
                add("attn_q_b.weight", &[rank, queries]);
            }
        }
        add("attn_kv_a_mqa.weight", &[HIDDEN, KV_LORA + ROPE]);
        add("attn_kv_a_norm.weight", &[KV_LORA]);
        match self.layout {
            Layout::PerHead => {
                add("attn_k_b.weight", &[NOPE, KV_LORA, HEADS]);
                add("attn_v_b.weight", &[KV_LORA, V_HEAD, HEADS]);
            }
            Layout::Legacy => add("attn_kv_b.weight", &[KV_LORA, HEADS * (NOPE + V_HEAD)]),
            Layout::TwoDimensions => {
                add("attn_k_b.weight", &[NOPE, KV_LORA * HEADS]);
                add("attn_v_b.weight", &[KV_LORA, V_HEAD * HEADS]);
            }
        }
        add("attn_output.weight", &[HEADS * V_HEAD, HIDDEN]);
        add("ffn_norm.weight", &[HIDDEN]);
        if layer == 0 {
            add("ffn_gate.weight", &[HIDDEN, DENSE_FF]);
            add("ffn_up.weight", &[HIDDEN, DENSE_FF]);
            add("ffn_down.weight", &[DENSE_FF, HIDDEN]);
            return;
        }
        add("ffn_gate_inp.weight", &[HIDDEN, EXPERTS]);
        add("exp_probs_b.bias", &[EXPERTS]);
        add("ffn_gate_exps.weight", &[HIDDEN, EXPERT_FF, EXPERTS]);
        add("ffn_up_exps.weight", &[HIDDEN, EXPERT_FF, EXPERTS]);
        add("ffn_down_exps.weight", &[EXPERT_FF, HIDDEN, EXPERTS]);
        let shared = self.shared * EXPERT_FF;
        add("ffn_gate_shexp.weight", &[HIDDEN, shared]);
        add("ffn_up_shexp.weight", &[HIDDEN, shared]);
        add("ffn_down_shexp.weight", &[shared, HIDDEN]);
    }
}

struct Tensors {
    draft: Draft,
    count: u32,
}

impl Tensors {
    /// Noise that keeps the size of what it is multiplied with; norms are about 1.
    fn add(&mut self, name: &str, dims: &[usize]) {
        self.count += 1;
        let mut values = noise(dims.iter().product(), self.count);
        let spread = 1.5 / (dims[0] as f32).sqrt();
        for value in &mut values {
            *value = match name {
                _ if name.ends_with("norm.weight") => 1.0 + 0.2 * *value,
                _ if name.ends_with(".bias") => 0.1 * *value,
                _ => spread * *value,
            };
        }
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        let dims: Vec<u64> = dims.iter().map(|dim| *dim as u64).collect();
        self.draft.add(name, &dims, Dtype::F32, bytes);
    }
}
