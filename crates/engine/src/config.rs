//! Hyperparameters of a `deepseek2` model, read from metadata, bounded and checked, so that no code
//! after it has to doubt a number. It must not know tensors or bytes.

use gguf::{Metadata, MetadataError};

use crate::Error;

/// The architecture of Kimi-K2, Moonlight and Kimi-VL's text model.
const ARCHITECTURE: &str = "deepseek2";

/// Where the ramp of YaRN begins when nothing says otherwise (arXiv 2309.00071, section 3.2).
const YARN_BETA_FAST: f32 = 32.0;
const YARN_BETA_SLOW: f32 = 1.0;

/// All sizes of a model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    pub(crate) layers: usize,
    /// The first layers, whose feed-forward is dense.
    pub(crate) dense_layers: usize,
    pub(crate) hidden: usize,
    pub(crate) heads: usize,
    /// Rank of the compressed query; `None` projects queries directly (Moonlight).
    pub(crate) q_lora: Option<usize>,
    /// Rank of the compressed keys and values.
    pub(crate) kv_lora: usize,
    /// Per head: query and key values without position.
    pub(crate) nope: usize,
    /// Per head: query and key values that RoPE turns; keys share one such part.
    pub(crate) rope_dim: usize,
    /// Per head: values.
    pub(crate) v_head: usize,
    pub(crate) dense_ff: usize,
    pub(crate) experts: Option<Experts>,
    pub(crate) rms_eps: f32,
    pub(crate) rope: RopeConfig,
    /// Tokens of context the model was made for.
    pub(crate) context: u32,
}

/// Sizes of the layers with experts.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Experts {
    pub(crate) count: usize,
    pub(crate) used: usize,
    /// Shared experts, fused into one of `shared · ff` hidden values.
    pub(crate) shared: usize,
    /// Hidden values of one expert.
    pub(crate) ff: usize,
    /// Multiplies the routed experts' weights.
    pub(crate) scale: f32,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub(crate) normalise: bool,
    pub(crate) gating: Gating,
}

/// How router logits become probabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gating {
    Softmax,
    Sigmoid,
}

/// Rotary position embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RopeConfig {
    pub(crate) base: f32,
    pub(crate) yarn: Option<Yarn>,
}

/// YaRN context extension (arXiv 2309.00071).
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Yarn {
    pub(crate) factor: f32,
    pub(crate) original_context: u32,
    /// Rotations over the original context at which interpolation begins …
    pub(crate) beta_fast: f32,
    /// … and at which it is complete.
    pub(crate) beta_slow: f32,
    /// 0.1 · mscale_all_dim: attention logits are scaled by (1 + this · ln factor)².
    pub(crate) log_multiplier: f32,
}

impl Config {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// [`Error::WrongArchitecture`], [`Error::Metadata`] naming a missing key, or
    /// [`Error::Hyperparameter`] naming a key out of bounds.
    pub(crate) fn read(metadata: &Metadata) -> Result<Self, Error> {
        let found = metadata.get_str("general.architecture")?;
        if found != ARCHITECTURE {
            return Err(Error::WrongArchitecture {
                found: found.to_owned(),
            });
        }
        let keys = Keys { metadata };
        let layers = keys.size("block_count", 1, 1024)?;
        let heads = keys.size("attention.head_count", 1, 1024)?;
        let kv_lora = keys.size("attention.kv_lora_rank", 1, 1 << 14)?;
        let rope_dim = keys.size("rope.dimension_count", 2, 1 << 12)?;
        if !rope_dim.is_multiple_of(2) {
            return Err(keys.refuse("rope.dimension_count", rope_dim, "it must be even"));
        }
        // Files from before multi-head latent attention was absorbed give the head sizes themselves.
        let head_size = |mla: &str, legacy: &str| match keys.opt_size(mla, 1, 1 << 14)? {
            Some(size) => Ok(size),
            None => keys.size(legacy, 1, 1 << 14),
        };
        let qk_head = head_size("attention.key_length_mla", "attention.key_length")?;
        let v_head = head_size("attention.value_length_mla", "attention.value_length")?;
        let nope = qk_head
            .checked_sub(rope_dim)
            .filter(|nope| *nope > 0)
            .ok_or_else(|| {
                keys.refuse(
                    "attention.key_length_mla",
                    qk_head,
                    "it must exceed rope.dimension_count",
                )
            })?;
        let rms_eps = keys.float("attention.layer_norm_rms_epsilon", 1e-12, 1.0)?;
        let dense_layers = keys
            .opt_size("leading_dense_block_count", 0, layers)?
            .unwrap_or(layers);
        Ok(Self {
            layers,
            dense_layers,
            hidden: keys.size("embedding_length", 1, 1 << 17)?,
            heads,
            q_lora: keys
                .opt_size("attention.q_lora_rank", 0, 1 << 17)?
                .filter(|rank| *rank > 0),
            kv_lora,
            nope,
            rope_dim,
            v_head,
            dense_ff: keys.size("feed_forward_length", 1, 1 << 20)?,
            experts: if dense_layers < layers {
                Some(Experts::read(&keys)?)
            } else {
                None
            },
            rms_eps,
            rope: RopeConfig::read(&keys)?,
            context: u32::try_from(keys.size("context_length", 1, 1 << 26)?).unwrap_or(u32::MAX),
        })
    }

    /// Values per token and layer in the KV cache: the compressed row and the rotary key.
    pub(crate) fn kv_row(&self) -> usize {
        self.kv_lora + self.rope_dim
    }

    /// The sizes as plans know them.
    pub(crate) fn hyper(&self, vocab: usize) -> sizing::Hyper {
        // Every size was checked to be far below u32::MAX.
        let size = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let expert = |of: fn(&Experts) -> usize| size(self.experts.as_ref().map_or(0, of));
        sizing::Hyper {
            layers: size(self.layers),
            dense_layers: size(self.dense_layers),
            hidden: size(self.hidden),
            heads: size(self.heads),
            kv_lora_rank: size(self.kv_lora),
            rope_dim: size(self.rope_dim),
            experts: expert(|experts| experts.count),
            experts_used: expert(|experts| experts.used),
            shared_experts: expert(|experts| experts.shared),
            vocab: size(vocab),
        }
    }

    /// Scales attention logits: 1/√head, times YaRN's correction squared.
    pub(crate) fn attention_scale(&self) -> f32 {
        let yarn = self.rope.yarn.as_ref().map_or(1.0, Yarn::magnitude);
        yarn * yarn / ((self.nope + self.rope_dim) as f32).sqrt()
    }
}

impl Experts {
    fn read(keys: &Keys<'_>) -> Result<Self, Error> {
        let count = keys.size("expert_count", 1, 1 << 14)?;
        for key in ["expert_group_count", "expert_group_used_count"] {
            if let Some(groups) = keys.opt_size(key, 0, 1 << 14)?.filter(|groups| *groups > 1) {
                let wanted = "grouped routing is not supported; no Kimi model uses it";
                return Err(keys.refuse(key, groups, wanted));
            }
        }
        let gating = match keys.opt_size("expert_gating_func", 0, 255)? {
            None | Some(0 | 1) => Gating::Softmax,
            Some(2) => Gating::Sigmoid,
            Some(other) => {
                let wanted = "1 (softmax) and 2 (sigmoid) are supported";
                return Err(keys.refuse("expert_gating_func", other, wanted));
            }
        };
        Ok(Self {
            count,
            used: keys.size("expert_used_count", 1, count)?,
            shared: keys
                .opt_size("expert_shared_count", 0, 1 << 10)?
                .unwrap_or(0),
            ff: keys.size("expert_feed_forward_length", 1, 1 << 20)?,
            scale: keys
                .opt_float("expert_weights_scale", 1e-6, 1e6)?
                .unwrap_or(1.0),
            normalise: keys.opt_bool("expert_weights_norm")?.unwrap_or(false),
            gating,
        })
    }
}

impl RopeConfig {
    /// llama.cpp does not read the ends of YaRN's ramp from these files.
    pub(crate) fn as_llama_cpp_has_it(&mut self) {
        if let Some(yarn) = &mut self.yarn {
            (yarn.beta_fast, yarn.beta_slow) = (YARN_BETA_FAST, YARN_BETA_SLOW);
        }
    }

    fn read(keys: &Keys<'_>) -> Result<Self, Error> {
        let base = keys.float("rope.freq_base", 1.0, 1e12)?;
        let kind = keys.opt_str("rope.scaling.type")?.unwrap_or("none");
        let yarn = match kind {
            "none" => None,
            "yarn" => Some(Yarn::read(keys)?),
            other => {
                return Err(keys.refuse("rope.scaling.type", other, "none and yarn are supported"));
            }
        };
        Ok(Self { base, yarn })
    }
}

impl Yarn {
    fn read(keys: &Keys<'_>) -> Result<Self, Error> {
        let factor = keys.float("rope.scaling.factor", 1.0, 1e6)?;
        let original = keys.size("rope.scaling.original_context_length", 1, 1 << 26)?;
        let beta_fast = match keys.opt_float("rope.scaling.yarn_beta_fast", 1e-3, 1e6)? {
            Some(beta_fast) => beta_fast,
            None => {
                let beta_fast = beta_fast_by_name(keys.metadata, factor);
                tracing::info!(
                    beta_fast,
                    "the file does not give YaRN's beta_fast; taken by name"
                );
                beta_fast
            }
        };
        Ok(Self {
            factor,
            original_context: u32::try_from(original).unwrap_or(u32::MAX),
            beta_fast,
            beta_slow: keys
                .opt_float("rope.scaling.yarn_beta_slow", 1e-3, 1e6)?
                .unwrap_or(YARN_BETA_SLOW),
            log_multiplier: keys
                .opt_float("rope.scaling.yarn_log_multiplier", 0.0, 100.0)?
                .unwrap_or(0.0),
        })
    }

    /// What YaRN's longer context takes from attention logits, per side of the product.
    fn magnitude(&self) -> f32 {
        1.0 + self.log_multiplier * self.factor.ln()
    }
}

/// `beta_fast` of files that do not give it: Kimi-K2's configurations say 1, K2.5's and everybody
/// else's 32. Kimi-K2-Instruct alone has the factor 32; 0905 and Thinking share 64 with K2.5 and
/// are told apart by name.
fn beta_fast_by_name(metadata: &Metadata, factor: f32) -> f32 {
    if !matches!(metadata.opt_str("tokenizer.ggml.pre"), Ok(Some("kimi-k2"))) {
        return YARN_BETA_FAST;
    }
    let named = |word: &str| {
        [
            "name",
            "basename",
            "finetune",
            "version",
            "base_model.0.name",
        ]
        .iter()
        .any(|key| {
            let found = metadata.opt_str(&format!("general.{key}"));
            matches!(found, Ok(Some(name)) if name.to_lowercase().contains(word))
        })
    };
    if factor == 32.0 || named("thinking") || named("0905") {
        1.0
    } else {
        YARN_BETA_FAST
    }
}

/// Metadata under the architecture's prefix.
struct Keys<'m> {
    metadata: &'m Metadata,
}

impl Keys<'_> {
    fn key(name: &str) -> String {
        format!("{ARCHITECTURE}.{name}")
    }

    fn refuse(&self, name: &str, found: impl ToString, wanted: impl Into<String>) -> Error {
        Error::Hyperparameter {
            key: Self::key(name),
            found: found.to_string(),
            wanted: wanted.into(),
        }
    }

    fn size(&self, name: &str, least: usize, most: usize) -> Result<usize, Error> {
        self.opt_size(name, least, most)?
            .ok_or_else(|| MetadataError::Missing(Self::key(name)).into())
    }

    fn opt_size(&self, name: &str, least: usize, most: usize) -> Result<Option<usize>, Error> {
        let Some(value) = self.metadata.opt_u64(&Self::key(name))? else {
            return Ok(None);
        };
        match usize::try_from(value) {
            Ok(size) if (least..=most).contains(&size) => Ok(Some(size)),
            _ => Err(self.refuse(name, value, format!("it must be {least} to {most}"))),
        }
    }

    fn float(&self, name: &str, least: f32, most: f32) -> Result<f32, Error> {
        self.opt_float(name, least, most)?
            .ok_or_else(|| MetadataError::Missing(Self::key(name)).into())
    }

    fn opt_float(&self, name: &str, least: f32, most: f32) -> Result<Option<f32>, Error> {
        let Some(value) = self.metadata.opt_f32(&Self::key(name))? else {
            return Ok(None);
        };
        // NaN is in no range.
        if (least..=most).contains(&value) {
            return Ok(Some(value));
        }
        Err(self.refuse(name, value, format!("it must be {least} to {most}")))
    }

    fn opt_bool(&self, name: &str) -> Result<Option<bool>, Error> {
        Ok(self.metadata.opt_bool(&Self::key(name))?)
    }

    fn opt_str(&self, name: &str) -> Result<Option<&str>, Error> {
        Ok(self.metadata.opt_str(&Self::key(name))?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
