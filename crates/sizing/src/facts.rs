//! What an inspection of a repository found: the only thing the inspect Job returns and all that exact planning
//! needs. It travels as a termination message and as a PVC annotation, so it stays under [`MAX_REPORT_BYTES`] and is
//! checked field by field when read back. It must not know how the facts were obtained or what hardware will serve.

use serde::{Deserialize, Serialize};

/// Kubernetes cuts a termination message at 4,096 bytes; a cut JSON is no JSON.
pub const MAX_REPORT_BYTES: usize = 4_000;

/// The `general.architecture` of every Kimi with multi-head latent attention.
pub const ARCHITECTURE: &str = "deepseek2";

/// The JSON document that `kimi inspect-remote` writes: `{"facts":{...}}` or `{"error":{...}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum InspectReport {
    Facts(Box<Facts>),
    Error(Failure),
}

/// Why an inspection (or a fetch, or a server) gave up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// One CamelCase word, fit for a condition's reason.
    pub reason: String,
    /// What happened and what to do next, in words.
    pub message: String,
}

/// One artifact: a quant of a model at a commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Hugging Face repository, `owner/name`.
    pub repo: String,
    /// Full commit id, 40 hex digits.
    pub commit: String,
    /// Directory (or file prefix) of the shards inside the repository.
    pub path: String,
    pub quant: String,
    pub shards: u32,
    /// Bytes of all shards together.
    pub bytes: u64,
    /// SHA-256 over the lines `<path> <size> <sha256>\n` of the shards in path order, 64 hex digits.
    pub digest: String,
    /// `general.architecture` of the files.
    pub architecture: String,
    /// `general.name` of the files.
    pub name: String,
    /// Longest context of the files' metadata, in tokens.
    pub context_length: u64,
    pub hyper: Hyper,
    /// Tensor-class histogram: one row per (class, dtype).
    pub classes: Vec<ClassRow>,
    /// Histogram of whole routed experts (gate, up and down of one expert of one layer) by byte size.
    pub expert_sizes: Vec<ExpertSize>,
}

/// The shapes that sizing needs; names follow the GGUF keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hyper {
    /// Transformer blocks.
    pub layers: u32,
    /// Leading blocks without experts.
    pub dense_layers: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Query heads.
    pub heads: u32,
    /// Width of MLA's compressed KV (512 in every Kimi).
    pub kv_lora_rank: u32,
    /// Width of the shared rotary key (64 in every Kimi).
    pub rope_dim: u32,
    /// Routed experts per expert layer.
    pub experts: u32,
    /// Routed experts read per token and layer.
    pub experts_used: u32,
    /// Experts read for every token.
    pub shared_experts: u32,
    pub vocab: u32,
}

impl Hyper {
    /// Blocks that have routed experts.
    pub fn expert_layers(&self) -> u64 {
        u64::from(self.layers.saturating_sub(self.dense_layers))
    }
}

/// What a tensor is for, as far as placing it in memory goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    Embedding,
    Output,
    Attention,
    Dense,
    SharedExpert,
    Expert,
    Router,
    Norm,
    Other,
}

/// Tensors of one class and dtype.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClassRow {
    pub class: Class,
    /// GGUF type name, or [`MIXED`] where small rows were merged to keep the report short.
    pub dtype: String,
    /// Tensors, not values.
    pub count: u64,
    pub bytes: u64,
}

/// The dtype of a row that stands for several.
pub const MIXED: &str = "mixed";

/// Whole experts of one byte size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExpertSize {
    /// Bytes of one expert: its slices of gate, up and down.
    pub bytes: u64,
    /// Experts of that size, over all layers.
    pub count: u64,
}

/// Facts that cannot be true, or a document that is not facts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    #[error("the report is {0} bytes; at most {MAX_REPORT_BYTES} are read")]
    TooLong(usize),
    #[error("the report is not the JSON expected: {0}")]
    Json(String),
    #[error("{field} {problem}")]
    Field {
        field: &'static str,
        problem: String,
    },
}

impl FactsError {
    pub(crate) fn field(field: &'static str, problem: &str) -> FactsError {
        FactsError::Field {
            field,
            problem: problem.to_owned(),
        }
    }
}

/// Most bytes believed of an artifact: 2^50, a thousand times the largest Kimi.
pub const MAX_BYTES: u64 = 1 << 50;

/// Checks every field against its bound, so that formulae over checked facts stay far from overflow.
pub fn check(facts: &Facts) -> Result<(), FactsError> {
    text("repo", &facts.repo, 1, 160)?;
    text("path", &facts.path, 0, 256)?;
    text("quant", &facts.quant, 1, 128)?;
    text("architecture", &facts.architecture, 1, 64)?;
    text("name", &facts.name, 0, 128)?;
    hex("commit", &facts.commit, 40)?;
    hex("digest", &facts.digest, 64)?;
    range("shards", u64::from(facts.shards), 1, 100_000)?;
    range("bytes", facts.bytes, 1, MAX_BYTES)?;
    range("contextLength", facts.context_length, 1, 1 << 27)?;
    check_hyper(&facts.hyper)?;
    check_histograms(facts)
}

fn check_hyper(hyper: &Hyper) -> Result<(), FactsError> {
    let rows = [
        ("layers", hyper.layers, 1, 1 << 10),
        ("denseLayers", hyper.dense_layers, 0, hyper.layers),
        ("hidden", hyper.hidden, 1, 1 << 20),
        ("heads", hyper.heads, 1, 1 << 14),
        ("kvLoraRank", hyper.kv_lora_rank, 1, 1 << 16),
        ("ropeDim", hyper.rope_dim, 1, 1 << 14),
        ("experts", hyper.experts, 0, 1 << 16),
        ("expertsUsed", hyper.experts_used, 0, hyper.experts),
        ("sharedExperts", hyper.shared_experts, 0, 1 << 10),
        ("vocab", hyper.vocab, 1, 1 << 24),
    ];
    rows.into_iter().try_for_each(|(field, value, min, max)| {
        range(field, u64::from(value), min, u64::from(max))
    })
}

fn check_histograms(facts: &Facts) -> Result<(), FactsError> {
    range("classes", facts.classes.len() as u64, 1, 512)?;
    range("expertSizes", facts.expert_sizes.len() as u64, 0, 1024)?;
    let mut tensors = 0u64;
    for row in &facts.classes {
        text("classes.dtype", &row.dtype, 1, 32)?;
        range("classes.count", row.count, 1, 1 << 20)?;
        range("classes.bytes", row.bytes, 0, facts.bytes)?;
        tensors += row.bytes;
    }
    range("bytes of all classes", tensors, 0, facts.bytes)?;
    for size in &facts.expert_sizes {
        range("expertSizes.bytes", size.bytes, 0, facts.bytes)?;
        range("expertSizes.count", size.count, 0, 1 << 26)?;
    }
    Ok(())
}

fn range(field: &'static str, value: u64, min: u64, max: u64) -> Result<(), FactsError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(FactsError::Field {
        field,
        problem: format!("is {value}; it must be {min} to {max}"),
    })
}

fn text(field: &'static str, value: &str, min: usize, max: usize) -> Result<(), FactsError> {
    if !(min..=max).contains(&value.len()) {
        let problem = format!("is {} bytes long; it must be {min} to {max}", value.len());
        return Err(FactsError::Field { field, problem });
    }
    if value.chars().any(char::is_control) {
        return Err(FactsError::field(field, "has control characters"));
    }
    Ok(())
}

fn hex(field: &'static str, value: &str, len: usize) -> Result<(), FactsError> {
    if value.len() == len
        && value
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    {
        return Ok(());
    }
    Err(FactsError::Field {
        field,
        problem: format!("is not {len} lower-case hex digits"),
    })
}
