//! Raw spec → [`ValidModel`]: every word resolved and bounded once, so that no later step reads the spec. It must know
//! no client and make no plan; what is wrong with a spec is a value, not an error.

use std::collections::BTreeSet;

use sizing::{Hardware, Model};
use spec::{HardwareName, SecretKeyRef};

use super::plan::Reason;

/// A spec whose every word means something.
#[derive(Clone, Debug)]
pub struct ValidModel {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub generation: i64,
    pub source: Source,
    /// The words of `quant: auto`'s choice.
    pub auto_reason: Option<String>,
    /// The catalogue's model, when the spec names one.
    pub catalogue: Option<&'static Model>,
    pub hardware_name: HardwareName,
    pub hardware: &'static Hardware,
    /// `spec.memory` in bytes.
    pub memory: Option<u64>,
    /// Tokens.
    pub context: Option<u64>,
    pub storage_class: Option<String>,
    /// Bytes.
    pub headroom: Option<u64>,
    pub replicas: i32,
    pub port: u16,
    pub api_key: Option<SecretKeyRef>,
    pub cpu_fallback: bool,
    pub suspend: bool,
    pub nodes: Nodes,
}

/// Where the bytes come from, resolved through the catalogue and `auto`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// [`crate::names::source_id`] of the rest.
    pub id: String,
    pub endpoint: Option<String>,
    pub repo: String,
    pub revision: String,
    pub path: Option<String>,
    pub quant: String,
    pub token: Option<SecretKeyRef>,
}

/// The Nodes that the hardware selects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes {
    /// (name, allocatable memory in bytes), largest memory first.
    pub matching: Vec<(String, u64)>,
    /// For GPU hardware: `nvidia.com/gpu.product` values seen on any Node.
    pub products_seen: BTreeSet<String>,
}

/// A spec that cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}
