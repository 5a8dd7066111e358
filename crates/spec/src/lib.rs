//! The `KimiModel` spec as plain data: its fields, defaults, schema rules and the same rules as code. It must
//! know no Kubernetes client, no sizes and no catalogue, so that `kimi plan` and `kimi run` read the very
//! document the operator reads.
#![forbid(unsafe_code)]

mod check;
mod document;
mod fields;
mod names;
pub mod pod;
mod quantity;
mod schema;

pub use check::{Violation, check, check_name, check_quant};
pub use document::{Document, Error, load, load_all};
pub use fields::{
    AUTO_QUANT, AccessMode, ConfigMapKeyRef, CpuFallback, DEFAULT_PORT, DEFAULT_REVISION,
    EngineUpdate, FilledVolume, HuggingFace, KimiModelSpec, NetworkPolicy, Peer, QuantFrom,
    Rollout, SecretKeyRef, Serving, Source, Storage, Strategy, WhenDeleted,
};
pub use names::{HardwareName, Objective};
pub use pod::PodOptions;
pub use quantity::{format_bytes, parse_quantity};
pub use schema::optional_means_absent;

/// API group of the custom resource.
pub const GROUP: &str = "kimioperator.dev";
/// Served and stored version.
pub const VERSION: &str = "v1alpha1";
/// Kind of the custom resource.
pub const KIND: &str = "KimiModel";
/// Longest object name: the longest suffix the operator adds (`-inspect-` + 10 hex digits, then the Job
/// controller's 6) must still fit a 63-byte label value.
pub const MAX_NAME: usize = 40;
