//! The spec's fields, their defaults and their schema. It must know no way to reach a cluster or a hub; a field
//! stands here only when something acts on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{HardwareName, Objective};
use crate::pod::{LabelSelector, PodOptions};
use crate::schema;

/// The quant that means "choose for me".
pub const AUTO_QUANT: &str = "auto";
/// Branch or tag fetched when none is given.
pub const DEFAULT_REVISION: &str = "main";
/// Port of the Service when none is given.
pub const DEFAULT_PORT: u16 = 8080;

/// What to serve, in which quant, on which hardware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = schema::optional_means_absent, extend("x-kubernetes-validations" = [
    {"rule": "has(self.model) || has(self.source)",
     "message": "give model (a name from the catalogue) or source.huggingFace.repo"},
    {"rule": "has(self.quant) != has(self.quantFrom)",
     "message": "give quant, or quantFrom instead of it"},
    {"rule": "!has(self.quant) || self.quant != 'auto' || has(self.model)",
     "message": "quant auto chooses from the catalogue: give model, or name the quant"},
    {"rule": "!has(self.serving) || !has(self.serving.replicas) || self.serving.replicas <= 1 \
              || has(self.storage) && has(self.storage.accessMode) && self.storage.accessMode != 'ReadWriteOnce'",
     "message": "more than one replica needs storage.accessMode ReadWriteMany, or ReadOnlyMany with source.pvc: one Node \
                 mounts any other volume"},
    {"rule": "!has(self.storage) || !has(self.storage.accessMode) || self.storage.accessMode != 'ReadOnlyMany' \
              || has(self.source) && has(self.source.pvc)",
     "message": "storage.accessMode ReadOnlyMany leaves nobody to write the weights: give source.pvc, a volume that is filled"},
    {"rule": "!has(self.quant) || self.quant != 'auto' || !has(self.source) || !has(self.source.pvc)",
     "message": "quant auto chooses what to fetch: with source.pvc name the quant that the volume holds"}]))]
pub struct KimiModelSpec {
    /// A name from the catalogue, such as Kimi-K2-Instruct. Clients may use it as the model's name; without source
    /// it also names the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::COMPONENT))]
    pub model: Option<String>,

    /// The quantization to serve: one of the catalogue's (UD-TQ1_0, UD-IQ1_S, UD-Q2_K_XL, UD-IQ3_XXS,
    /// UD-Q4_K_XL, UD-Q5_K_XL), any other directory or file prefix of the repository, or auto. Editing it
    /// fetches the new weights beside the old ones and switches when they answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = schema::COMPONENT))]
    pub quant: Option<String>,

    /// Where the quant stands instead of in quant. Editing it there is as good as editing quant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quant_from: Option<QuantFrom>,

    /// The GPU to plan for, or CPU. With serving.cpuFallback Allow, Nodes that carry the GPU are preferred.
    pub hardware: HardwareName,

    /// What quant auto optimises for. Ignored with any other quant.
    #[serde(default)]
    #[schemars(extend("default" = "Production"))]
    pub objective: Objective,

    /// Budget of RAM for the server, as a quantity. Default: the largest allocatable memory of the Nodes that
    /// the hardware selects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), regex(pattern = schema::QUANTITY))]
    pub memory: Option<String>,

    /// Where the weights come from, when not from the catalogue's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,

    /// The volume that holds the weights.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub storage: Storage,

    /// How the model is served.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub serving: Serving,

    /// How a server gives way to the next one after an edit.
    #[serde(default)]
    #[schemars(extend("default" = {}))]
    pub rollout: Rollout,

    /// Additions to the pods of this model, as far as the operator's administrator allows them.
    #[serde(default)]
    pub pod: PodOptions,

    /// Stop the server and any download, keep the weights. Setting it back continues where things stood.
    #[serde(default)]
    #[schemars(extend("default" = false))]
    pub suspend: bool,
}

/// Where the quant stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct QuantFrom {
    /// A ConfigMap in the same namespace, such as the quantization guide's with its QUANT_TYPE.
    pub config_map_key_ref: ConfigMapKeyRef,
}

/// One key of a ConfigMap in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub name: String,
    /// Key inside it.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DATA_KEY))]
    pub key: String,
}

/// Where the weights come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent, extend("x-kubernetes-validations" = [
    {"rule": "has(self.huggingFace) != has(self.pvc)", "message": "give huggingFace, or pvc instead of it"}]))]
pub struct Source {
    /// A repository of a Hugging Face hub, or of a mirror that speaks its API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hugging_face: Option<HuggingFace>,

    /// A volume that already holds the weights, for clusters without a hub. It is checked and mounted read-only, and
    /// never written, resized or deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pvc: Option<FilledVolume>,
}

/// A volume that somebody else filled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct FilledVolume {
    /// Name of the PersistentVolumeClaim in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub claim_name: String,

    /// Directory or first shard of the model on it. Default: the directory named like the quant, or the root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200), regex(pattern = schema::PATH))]
    pub path: Option<String>,
}

/// One repository of a hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct HuggingFace {
    /// owner/name of the repository.
    #[schemars(length(min = 3, max = 128), regex(pattern = schema::REPO))]
    pub repo: String,

    /// Branch, tag or commit. It is resolved to a commit once, and again when the source is edited.
    #[serde(default = "default_revision")]
    #[schemars(length(min = 1, max = 128), regex(pattern = schema::PATH), extend("default" = "main"))]
    pub revision: String,

    /// Directory or file prefix inside the repository that holds the quant, when its name alone is ambiguous.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::PATH))]
    pub path: Option<String>,

    /// Base URL of a mirror. Default: https://huggingface.co.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 253), regex(pattern = schema::ENDPOINT))]
    pub endpoint: Option<String>,

    /// Secret with the access token of a gated or private repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub name: String,
    /// Key inside it.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::DATA_KEY))]
    pub key: String,
}

/// The volume that holds the weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct Storage {
    /// StorageClass of the claim. Default: the cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub storage_class_name: Option<String>,

    /// Room on the volume beyond the weights, as a quantity. Default: 50 GB, at most a quarter of the weights. Read
    /// when the volume is made, and may grow it until the weights are verified, where the StorageClass expands
    /// volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 24), regex(pattern = schema::QUANTITY))]
    pub headroom: Option<String>,

    /// How many other quants keep their volumes once a switch has settled and the old server is gone; the ones served
    /// last are kept, and switching back to one of them downloads nothing. 0 keeps the served one alone. Default: all,
    /// since nobody asked for weights to be deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64), extend("format" = "int32"))]
    pub keep_quants: Option<u32>,

    /// Whether the volumes stay when the KimiModel is deleted. A KimiModel of the same name takes retained ones over
    /// after checking them.
    #[serde(default)]
    #[schemars(extend("default" = "Retain"))]
    pub when_deleted: WhenDeleted,

    /// How Nodes may mount the volume. More than one replica needs ReadWriteMany, or ReadOnlyMany with source.pvc. Read
    /// when the volume is made.
    #[serde(default)]
    #[schemars(extend("default" = "ReadWriteOnce"))]
    pub access_mode: AccessMode,
}

/// What becomes of the volumes of a KimiModel that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum WhenDeleted {
    #[default]
    Retain,
    Delete,
}

/// How Nodes may mount a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AccessMode {
    #[default]
    ReadWriteOnce,
    ReadWriteMany,
    ReadOnlyMany,
}

impl AccessMode {
    /// The word users write, which is Kubernetes' own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadWriteOnce => "ReadWriteOnce",
            Self::ReadWriteMany => "ReadWriteMany",
            Self::ReadOnlyMany => "ReadOnlyMany",
        }
    }

    /// True if several Nodes may mount the volume at once.
    pub fn is_shared(self) -> bool {
        match self {
            Self::ReadWriteOnce => false,
            Self::ReadWriteMany | Self::ReadOnlyMany => true,
        }
    }
}

/// How the model is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct Serving {
    /// Server pods; 0 keeps the weights without serving them, and more than 1 need a storage.accessMode
    /// that several Nodes share.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000), extend("default" = 1))]
    pub replicas: i32,

    /// Tokens of context to plan and serve. Default: 16384, or the model's limit where that is lower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 128, max = 1_048_576), extend("format" = "int32"))]
    pub context_length: Option<u32>,

    /// Port of the Service.
    #[serde(default = "default_port")]
    #[schemars(range(min = 1, max = 65535), extend("default" = 8080, "format" = "int32"))]
    pub port: u16,

    /// Secret with the key that clients must present as a bearer token. Default: none asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,

    /// Whether the CPU may serve when the GPU cannot be used; it does so on a Node with the GPU where there is one.
    #[serde(default)]
    #[schemars(extend("default" = "Deny"))]
    pub cpu_fallback: CpuFallback,

    /// Rules on who may talk to the pods. Default: none, and who may is the cluster's matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<NetworkPolicy>,
}

/// Who may talk to the pods, where the cluster's network enforces it: pods of the model's own namespace, and these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct NetworkPolicy {
    /// Others who may call the API.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub from: Vec<Peer>,
}

/// Pods by the labels of their namespace, their own, or both.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent, extend("x-kubernetes-validations" = [
    {"rule": "has(self.namespaceSelector) || has(self.podSelector)",
     "message": "a peer needs a namespaceSelector, a podSelector or both"}]))]
pub struct Peer {
    /// Labels of their namespace; the model's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Labels of the pods; all of the namespace when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelector>,
}

impl Default for Serving {
    fn default() -> Self {
        Self {
            replicas: one(),
            context_length: None,
            port: DEFAULT_PORT,
            api_key_secret_ref: None,
            cpu_fallback: CpuFallback::default(),
            network_policy: None,
        }
    }
}

/// Whether a GPU model may run without its GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CpuFallback {
    #[default]
    Deny,
    Allow,
}

/// How a server gives way to the next one after an edit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct Rollout {
    /// Staged fetches the new weights beside those that serve and switches when they answer. Replace, for a cluster
    /// without room for both, first stops the old server and deletes its weights: nothing answers until the new ones
    /// do, and there is no way back.
    #[serde(default)]
    #[schemars(extend("default" = "Staged"))]
    pub strategy: Strategy,

    /// Seconds that a new server has, from its placement on a Node, until it must have passed its self-test; after
    /// them the old server is kept. Default: 20 minutes and what reading the weights takes at 50 MB/s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 604_800), extend("format" = "int32"))]
    pub progress_deadline_seconds: Option<u32>,

    /// Longest time without a server that an edit may cost, in seconds, where only one server fits. An edit that is
    /// expected to take longer, or does, is rolled back; 0 never stops a server to make room. Default: no limit but
    /// progressDeadlineSeconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 604_800), extend("format" = "int32"))]
    pub max_outage_seconds: Option<u32>,

    /// Whether a new version of the operator or of the worker image replaces servers that run: Automatic, or Manual
    /// with the next edit that concerns the server. Condition EngineOutdated says when one waits.
    #[serde(default)]
    #[schemars(extend("default" = "Manual"))]
    pub engine_update: EngineUpdate,
}

/// What becomes of the old weights while new ones are fetched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Strategy {
    #[default]
    Staged,
    Replace,
}

/// What a new version of operator or worker does to servers that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum EngineUpdate {
    #[default]
    Manual,
    Automatic,
}

fn default_revision() -> String {
    DEFAULT_REVISION.to_owned()
}

fn one() -> i32 {
    1
}

fn default_port() -> u16 {
    DEFAULT_PORT
}
