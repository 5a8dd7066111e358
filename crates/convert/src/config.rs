//! config.json of a DeepSeek-V3-shaped model (Kimi-K2, Moonlight), checked, and its GGUF metadata.
//! It must not know tensors or the tokenizer.

use std::path::Path;

use gguf::{Metadata, Value};
use serde::Deserialize;

use crate::error::Error;

/// The fields a conversion needs. Absent ones have the defaults of the Hugging Face configuration class.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Config {
    pub(crate) model_type: String,
    pub(crate) vocab_size: u32,
    pub(crate) hidden_size: u32,
    pub(crate) intermediate_size: u32,
    pub(crate) moe_intermediate_size: u32,
    pub(crate) num_hidden_layers: u32,
    pub(crate) num_attention_heads: u32,
    #[serde(default)]
    pub(crate) n_shared_experts: u32,
    pub(crate) n_routed_experts: u32,
    pub(crate) num_experts_per_tok: u32,
    #[serde(default = "one_f32")]
    pub(crate) routed_scaling_factor: f32,
    pub(crate) kv_lora_rank: u32,
    pub(crate) q_lora_rank: Option<u32>,
    pub(crate) qk_rope_head_dim: u32,
    pub(crate) qk_nope_head_dim: u32,
    pub(crate) v_head_dim: u32,
    #[serde(default = "one")]
    pub(crate) n_group: u32,
    #[serde(default = "one")]
    pub(crate) topk_group: u32,
    #[serde(default)]
    pub(crate) first_k_dense_replace: u32,
    #[serde(default = "one")]
    pub(crate) moe_layer_freq: u32,
    #[serde(default)]
    pub(crate) norm_topk_prob: bool,
    pub(crate) max_position_embeddings: u32,
    pub(crate) rms_norm_eps: f32,
    #[serde(default)]
    pub(crate) attention_bias: bool,
    #[serde(default)]
    pub(crate) tie_word_embeddings: bool,
    #[serde(default = "theta")]
    pub(crate) rope_theta: f32,
    pub(crate) rope_scaling: Option<RopeScaling>,
    #[serde(default = "sigmoid")]
    pub(crate) scoring_func: String,
    #[serde(default = "silu")]
    pub(crate) hidden_act: String,
    pub(crate) bos_token_id: Option<u32>,
    pub(crate) eos_token_id: Option<u32>,
}

/// How positions beyond the trained context are reached (YaRN, arXiv 2309.00071).
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct RopeScaling {
    #[serde(alias = "rope_type")]
    pub(crate) r#type: String,
    pub(crate) factor: f32,
    #[serde(default = "beta_fast")]
    pub(crate) beta_fast: f32,
    #[serde(default = "one_f32")]
    pub(crate) beta_slow: f32,
    #[serde(default = "one_f32")]
    pub(crate) mscale: f32,
    #[serde(default)]
    pub(crate) mscale_all_dim: f32,
    pub(crate) original_max_position_embeddings: u32,
}

fn one() -> u32 {
    1
}
fn one_f32() -> f32 {
    1.0
}
fn theta() -> f32 {
    10_000.0
}
fn beta_fast() -> f32 {
    32.0
}
fn sigmoid() -> String {
    "sigmoid".to_owned()
}
fn silu() -> String {
    "silu".to_owned()
}

impl Config {
    /// Reads and checks `config.json` of a model directory.
    ///
    /// # Errors
    /// Names the field that is missing, out of range or not expressible in GGUF's `deepseek2` layout.
    pub(crate) fn read(dir: &Path) -> Result<Config, Error> {
        let path = dir.join("config.json");
        let text = std::fs::read(&path).map_err(Error::io(&path))?;
        let config: Config =
            serde_json::from_slice(&text).map_err(|error| Error::Json { path, error })?;
        config.check()?;
        Ok(config)
    }

    /// Shapes become products, so each is bounded; each bound is several times the largest published model's.
    fn check(&self) -> Result<(), Error> {
        let refuse = |problem: String| Err(Error::Config(problem));
        if !["deepseek_v3", "kimi_k2"].contains(&self.model_type.as_str()) {
            return refuse(format!(
                "model_type '{}' is not deepseek_v3 or kimi_k2",
                self.model_type
            ));
        }
        for (field, value, limit) in [
            ("vocab_size", self.vocab_size, 1 << 20),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("moe_intermediate_size", self.moe_intermediate_size, 1 << 18),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("n_routed_experts", self.n_routed_experts, 1 << 12),
            ("kv_lora_rank", self.kv_lora_rank, 1 << 14),
            ("q_lora_rank", self.q_lora_rank.unwrap_or(1), 1 << 16),
            ("qk_rope_head_dim", self.qk_rope_head_dim, 1 << 12),
            ("qk_nope_head_dim", self.qk_nope_head_dim, 1 << 12),
            ("v_head_dim", self.v_head_dim, 1 << 12),
        ] {
            if value == 0 || value > limit {
                return refuse(format!("{field} is {value}; 1 to {limit} are allowed"));
            }
        }
        if self.num_experts_per_tok == 0 || self.num_experts_per_tok > self.n_routed_experts {
            return refuse(format!(
                "num_experts_per_tok is {} of {} experts",
                self.num_experts_per_tok, self.n_routed_experts
            ));
        }
        if self.first_k_dense_replace > self.num_hidden_layers || self.n_shared_experts > 64 {
            return refuse("first_k_dense_replace or n_shared_experts is out of range".to_owned());
        }
        if self.moe_layer_freq != 1 || self.attention_bias || self.hidden_act != "silu" {
            return refuse("moe_layer_freq other than 1, attention_bias and hidden_act other than silu are not supported".to_owned());
        }
        if !["sigmoid", "softmax"].contains(&self.scoring_func.as_str()) {
            return refuse(format!(
                "scoring_func '{}' is not supported",
                self.scoring_func
            ));
        }
        match &self.rope_scaling {
            Some(rope) if rope.r#type != "yarn" => {
                refuse(format!("rope_scaling type '{}' is not yarn", rope.r#type))
            }
            // GGUF has one multiplier; with unequal ones cos and sin would need a scale of their own.
            Some(rope) if rope.mscale != rope.mscale_all_dim => refuse(format!(
                "mscale {} differs from mscale_all_dim {}",
                rope.mscale, rope.mscale_all_dim
            )),
            _ => Ok(()),
        }
    }

    /// Sets the `deepseek2.*` keys.
    pub(crate) fn write_metadata(&self, metadata: &mut Metadata) {
        let mut set = |key: &str, value: Value| {
            metadata.set(&format!("deepseek2.{key}"), value);
        };
        let rope = self.qk_rope_head_dim;
        set("context_length", Value::U32(self.max_position_embeddings));
        set("block_count", Value::U32(self.num_hidden_layers));
        set("embedding_length", Value::U32(self.hidden_size));
        set("feed_forward_length", Value::U32(self.intermediate_size));
        set("attention.head_count", Value::U32(self.num_attention_heads));
        // Absorbed MLA is multi-query attention over one latent head.
        set("attention.head_count_kv", Value::U32(1));
        set(
            "attention.layer_norm_rms_epsilon",
            Value::F32(self.rms_norm_eps),
        );
        set("rope.freq_base", Value::F32(self.rope_theta));
        set("vocab_size", Value::U32(self.vocab_size));
        set(
            "leading_dense_block_count",
            Value::U32(self.first_k_dense_replace),
        );
        if let Some(rank) = self.q_lora_rank {
            set("attention.q_lora_rank", Value::U32(rank));
        }
        set("attention.kv_lora_rank", Value::U32(self.kv_lora_rank));
        set("attention.key_length", Value::U32(self.kv_lora_rank + rope));
        set("attention.value_length", Value::U32(self.kv_lora_rank));
        set(
            "attention.key_length_mla",
            Value::U32(self.qk_nope_head_dim + rope),
        );
        set("attention.value_length_mla", Value::U32(self.v_head_dim));
        set(
            "expert_feed_forward_length",
            Value::U32(self.moe_intermediate_size),
        );
        set("expert_count", Value::U32(self.n_routed_experts));
        set("expert_used_count", Value::U32(self.num_experts_per_tok));
        set("expert_shared_count", Value::U32(self.n_shared_experts));
        set(
            "expert_weights_scale",
            Value::F32(self.routed_scaling_factor),
        );
        set("expert_weights_norm", Value::Bool(self.norm_topk_prob));
        let gating = if self.scoring_func == "sigmoid" { 2 } else { 1 };
        set("expert_gating_func", Value::U32(gating));
        if self.n_group > 1 {
            set("expert_group_count", Value::U32(self.n_group));
            set("expert_group_used_count", Value::U32(self.topk_group));
        }
        set("rope.dimension_count", Value::U32(rope));
        if let Some(scaling) = &self.rope_scaling {
            let original = scaling.original_max_position_embeddings;
            set("rope.scaling.type", Value::String("yarn".to_owned()));
            set("rope.scaling.factor", Value::F32(scaling.factor));
            set("rope.scaling.original_context_length", Value::U32(original));
            let multiplier = (0.1 * f64::from(scaling.mscale_all_dim)) as f32;
            set("rope.scaling.yarn_log_multiplier", Value::F32(multiplier));
            set("rope.scaling.yarn_beta_fast", Value::F32(scaling.beta_fast));
            set("rope.scaling.yarn_beta_slow", Value::F32(scaling.beta_slow));
        }
    }
}
