//! From GGUF headers to facts: which class a tensor belongs to, the class histogram and the sizes of whole experts. It
//! must not read files; the headers come from wherever the caller got them.

use std::collections::BTreeMap;

use gguf::{Header, Metadata, MetadataError, TensorInfo};

use crate::facts::FactsError;
use crate::facts::{ARCHITECTURE, Class, ClassRow, ExpertSize, Facts, Hyper, check};

/// What the headers do not say about an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub repo: String,
    pub commit: String,
    pub path: String,
    pub quant: String,
    /// SHA-256 over the shard list, 64 hex digits; see [`Facts::digest`].
    pub digest: String,
    /// Bytes of all shards together.
    pub bytes: u64,
}

/// Headers that are no Kimi, or whose numbers cannot be true.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    #[error(
        "the files are of architecture '{0}'; this engine serves '{ARCHITECTURE}' (Kimi K2, Moonlight, Kimi-VL)"
    )]
    WrongArchitecture(String),
    #[error("there is no GGUF header to inspect")]
    NoHeaders,
    #[error("GGUF metadata: {0}")]
    Metadata(String),
    #[error(transparent)]
    Facts(#[from] FactsError),
}

impl InspectError {
    /// One CamelCase word, fit for a condition's reason.
    pub fn reason(&self) -> &'static str {
        match self {
            InspectError::WrongArchitecture(_) => "WrongArchitecture",
            InspectError::NoHeaders | InspectError::Metadata(_) | InspectError::Facts(_) => {
                "BadHeader"
            }
        }
    }
}

impl From<MetadataError> for InspectError {
    fn from(error: MetadataError) -> Self {
        InspectError::Metadata(error.to_string())
    }
}

impl Facts {
    /// Facts of a split set, its headers in shard order (the first carries the metadata). The same bounds hold as for
    /// facts that were read back.
    pub fn from_headers(headers: &[Header], identity: &Identity) -> Result<Facts, InspectError> {
        let first = headers.first().ok_or(InspectError::NoHeaders)?;
        let architecture = first.metadata.get_str("general.architecture")?;
        if architecture != ARCHITECTURE {
            return Err(InspectError::WrongArchitecture(
                architecture.chars().take(64).collect(),
            ));
        }
        let tensors = || headers.iter().flat_map(|header| &header.tensors);
        let hyper = hyper(&first.metadata, tensors())?;
        let name = first
            .metadata
            .opt_str("general.name")?
            .unwrap_or(&identity.quant);
        let facts = Facts {
            repo: identity.repo.clone(),
            commit: identity.commit.clone(),
            path: identity.path.clone(),
            quant: identity.quant.clone(),
            shards: u32::try_from(headers.len()).unwrap_or(u32::MAX),
            bytes: identity.bytes,
            digest: identity.digest.clone(),
            architecture: architecture.to_owned(),
            name: name.chars().filter(|c| !c.is_control()).take(96).collect(),
            context_length: first.metadata.get_u64(&key("context_length"))?,
            classes: classes(tensors()),
            expert_sizes: expert_sizes(tensors(), hyper.experts),
            hyper,
        };
        check(&facts)?;
        Ok(facts)
    }
}

fn key(name: &str) -> String {
    format!("{ARCHITECTURE}.{name}")
}

fn hyper<'a>(
    metadata: &Metadata,
    mut tensors: impl Iterator<Item = &'a TensorInfo>,
) -> Result<Hyper, InspectError> {
    // Older converters leave vocab_size out; the embedding [hidden, vocab] has as many rows.
    let vocab = match metadata.opt_u32(&key("vocab_size"))? {
        Some(vocab) => vocab,
        None => tensors
            .find(|tensor| tensor.name == "token_embd.weight")
            .and_then(|tensor| u32::try_from(tensor.rows()).ok())
            .ok_or_else(|| {
                InspectError::Metadata(format!("no {} and no token_embd", key("vocab_size")))
            })?,
    };
    Ok(Hyper {
        layers: metadata.get_u32(&key("block_count"))?,
        dense_layers: metadata
            .opt_u32(&key("leading_dense_block_count"))?
            .unwrap_or(0),
        hidden: metadata.get_u32(&key("embedding_length"))?,
        heads: metadata.get_u32(&key("attention.head_count"))?,
        kv_lora_rank: metadata.get_u32(&key("attention.kv_lora_rank"))?,
        rope_dim: metadata.get_u32(&key("rope.dimension_count"))?,
        experts: metadata.opt_u32(&key("expert_count"))?.unwrap_or(0),
        experts_used: metadata.opt_u32(&key("expert_used_count"))?.unwrap_or(0),
        shared_experts: metadata.opt_u32(&key("expert_shared_count"))?.unwrap_or(0),
        vocab,
    })
}

/// The expert of a tensor that holds one expert's matrix: 12 of `ffn_gate.12`.
fn own_expert(stem: &str) -> Option<u32> {
    let (matrix, expert) = stem.split_once('.')?;
    matches!(matrix, "ffn_gate" | "ffn_up" | "ffn_down")
        .then(|| expert.parse().ok())
        .flatten()
}

/// Layer and stem of a tensor's name: (7, `ffn_down_exps`) of `blk.7.ffn_down_exps.weight`; no layer elsewhere.
fn parts(name: &str) -> (Option<&str>, &str) {
    let (layer, part) = match name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
    {
        Some((layer, part)) => (Some(layer), part),
        None => (None, name),
    };
    let stem = part
        .strip_suffix(".weight")
        .or_else(|| part.strip_suffix(".bias"));
    (layer, stem.unwrap_or(part))
}

/// The class of a tensor, from its name in llama.cpp's scheme (`blk.7.ffn_down_exps.weight`).
pub fn class_of(name: &str) -> Class {
    let (_, stem) = parts(name);
    match stem {
        "token_embd" => Class::Embedding,
        "output" => Class::Output,
        "ffn_gate_inp" | "exp_probs_b" => Class::Router,
        _ if stem.ends_with("_norm") => Class::Norm,
        _ if stem.ends_with("_exps") || own_expert(stem).is_some() => Class::Expert,
        _ if stem.ends_with("_shexp") => Class::SharedExpert,
        _ if stem.starts_with("attn_") => Class::Attention,
        _ if stem.starts_with("ffn_") => Class::Dense,
        _ => Class::Other,
    }
}

/// What parts of a name in a Hugging Face checkpoint say of the tensor's class; the first that is found counts.
const CHECKPOINT_PARTS: [(&str, Class); 10] = [
    ("vision_tower.", Class::Other),
    ("projector.", Class::Other),
    ("embed_tokens.", Class::Embedding),
    ("lm_head.", Class::Output),
    ("norm.", Class::Norm),
    (".mlp.gate.", Class::Router),
    (".mlp.experts.", Class::Expert),
    (".mlp.shared_experts.", Class::SharedExpert),
    (".self_attn.", Class::Attention),
    (".mlp.", Class::Dense),
];

/// The class of a tensor of a Hugging Face checkpoint, from its name
/// (`model.layers.7.mlp.experts.3.down_proj.weight`).
pub fn class_of_checkpoint(name: &str) -> Class {
    CHECKPOINT_PARTS
        .iter()
        .find(|(part, _)| name.contains(part))
        .map_or(Class::Other, |(_, class)| *class)
}

fn classes<'a>(tensors: impl Iterator<Item = &'a TensorInfo>) -> Vec<ClassRow> {
    let mut rows: BTreeMap<(Class, &'static str), (u64, u64)> = BTreeMap::new();
    for tensor in tensors {
        let row = rows
            .entry((class_of(&tensor.name), tensor.dtype.name()))
            .or_default();
        row.0 += 1;
        row.1 = row.1.saturating_add(tensor.bytes);
    }
    rows.into_iter()
        .map(|((class, dtype), (count, bytes))| ClassRow {
            class,
            dtype: dtype.to_owned(),
            count,
            bytes,
        })
        .collect()
}

/// Bytes of whole experts: gate, up and down may have different types, layers differ, and experts with tensors of their
/// own may differ within a layer.
fn expert_sizes<'a>(
    tensors: impl Iterator<Item = &'a TensorInfo>,
    experts: u32,
) -> Vec<ExpertSize> {
    /// Bytes of a layer's tensors that hold all experts, and of those that hold one.
    #[derive(Default)]
    struct Layer {
        joined: u64,
        own: BTreeMap<u32, u64>,
    }
    let mut layers: BTreeMap<Option<&str>, Layer> = BTreeMap::new();
    for tensor in tensors.filter(|tensor| class_of(&tensor.name) == Class::Expert) {
        let (layer, stem) = parts(&tensor.name);
        let layer = layers.entry(layer).or_default();
        let bytes = match own_expert(stem) {
            Some(expert) => layer.own.entry(expert).or_default(),
            None => &mut layer.joined,
        };
        *bytes = bytes.saturating_add(tensor.bytes);
    }
    let mut sizes: BTreeMap<u64, u64> = BTreeMap::new();
    for layer in layers.into_values() {
        let share = layer.joined / u64::from(experts.max(1));
        let others = u64::from(experts).saturating_sub(layer.own.len() as u64);
        for own in layer.own.into_values() {
            *sizes.entry(share.saturating_add(own)).or_default() += 1;
        }
        if others > 0 && share > 0 {
            *sizes.entry(share).or_default() += others;
        }
    }
    sizes
        .into_iter()
        .map(|(bytes, count)| ExpertSize { bytes, count })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_a_checkpoint_s_tensors() {
        for (name, class) in [
            ("model.embed_tokens.weight", Class::Embedding),
            ("lm_head.weight", Class::Output),
            ("model.norm.weight", Class::Norm),
            (
                "model.layers.3.self_attn.kv_a_layernorm.weight",
                Class::Norm,
            ),
            (
                "model.layers.3.post_attention_layernorm.weight",
                Class::Norm,
            ),
            (
                "model.layers.3.self_attn.kv_b_proj.weight",
                Class::Attention,
            ),
            ("model.layers.0.mlp.down_proj.weight", Class::Dense),
            (
                "model.layers.3.mlp.gate.e_score_correction_bias",
                Class::Router,
            ),
            (
                "model.layers.3.mlp.experts.7.up_proj.weight_packed",
                Class::Expert,
            ),
            (
                "language_model.model.layers.3.mlp.shared_experts.up_proj.weight",
                Class::SharedExpert,
            ),
            ("vision_tower.encoder.blocks.0.norm0.weight", Class::Other),
            ("mm_projector.proj.0.weight", Class::Other),
            ("strange", Class::Other),
        ] {
            assert_eq!(class_of_checkpoint(name), class, "{name}");
        }
    }
}
