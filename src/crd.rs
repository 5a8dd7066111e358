//! The KimiModel custom resource: the spec of crate `spec` plus the status, as Kubernetes sees them. It must know no
//! behaviour: what the fields mean for a cluster is decided in `controller`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use spec::KimiModelSpec;

/// The spec under its own name, because the derive wants a struct of this crate.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kimioperator.dev",
    version = "v1alpha1",
    kind = "KimiModel",
    plural = "kimimodels",
    shortname = "km",
    namespaced,
    status = "KimiModelStatus",
    derive = "PartialEq",
    doc = "A Kimi model served with the one GPU you have: which model, in which quant, on which hardware.",
    validation = Rule::new("self.metadata.name.matches('^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$')")
        .message("the name must be at most 40 lower-case letters, digits and '-', starting with a letter: it names a Service"),
    scale(
        spec_replicas_path = ".spec.serving.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Quant", type_ = "string", json_path = ".status.targetQuant"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.activeQuant", priority = 1),
    printcolumn(name = "Hardware", type_ = "string", json_path = ".spec.hardware"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(transparent)]
#[schemars(
    transparent,
    description = "What to serve, in which quant, on which hardware."
)]
pub struct Spec(pub KimiModelSpec);

/// What the operator saw and did. Nothing it decides depends on this: delete it and it is written again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct KimiModelStatus {
    /// Generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Planned, ArtifactReady, Accelerated, Serving, MemoryFits, Ready, and kstatus' Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,

    /// The current step in a few words, with a share and an ETA while something is counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub progress: Option<String>,

    /// What serving the quant takes on the hardware.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,

    /// The weights being fetched or served for the current spec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactStatus>,

    /// What was planned and what the server that answers measured, side by side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,

    /// The volumes of this model, those of a deleted KimiModel of the same name too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub volumes: Vec<VolumeStatus>,

    /// Quant that answers at the endpoint now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub active_quant: Option<String>,

    /// Quant that the spec asks for; with auto, the one chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub target_quant: Option<String>,

    /// Base URL of the OpenAI API inside the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub endpoint: Option<String>,

    /// The last time the endpoint changed from one server to another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_switch: Option<LastSwitch>,

    /// The last changes, newest first: switches and rollbacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<HistoryEntry>,

    /// How long each phase of the current target took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timings: Option<Timings>,

    /// Server pods that answer, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,

    /// Label selector of the server pods, for the scale subresource.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub selector: Option<String>,
}

/// The plan of crate `sizing`; the same field names as `kimi plan -o json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct PlanStatus {
    /// `catalogue` (from the tables) or `exact` (from the files' own tensor tables).
    #[schemars(length(max = 16))]
    pub basis: String,
    /// Size of the volume.
    pub storage_bytes: i64,
    /// RAM with every expert resident that is not in VRAM.
    pub ram_bytes: i64,
    /// RAM with which it still runs, reading experts from disk.
    pub ram_min_bytes: i64,
    /// VRAM without any routed expert.
    pub vram_bytes: i64,
    /// The catalogue's VRAM figure, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalogue_vram_bytes: Option<i64>,
    /// Whole routed experts that fit in the rest of the VRAM.
    pub gpu_experts: i64,
    /// Download time at 1 Gbps.
    pub download_seconds: i64,
    /// Expected decode speed, in thousandths of a token per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milli_tokens_per_second: Option<i64>,
    /// Tokens of context planned for.
    pub context_length: i64,
    /// yes, tight or no.
    #[schemars(length(max = 8))]
    pub fits: String,
    /// The verdict in words, with the numbers.
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// One set of weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct ArtifactStatus {
    /// Id in object names.
    #[schemars(length(max = 16))]
    pub id: String,
    /// Repository.
    #[schemars(length(max = 128))]
    pub repo: String,
    /// Commit that the revision was resolved to.
    #[schemars(length(max = 64))]
    pub commit: String,
    /// Quant.
    #[schemars(length(max = 63))]
    pub quant: String,
    /// Files.
    pub shards: i64,
    /// Size of all files.
    pub bytes: i64,
    /// Bytes on the volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub downloaded_bytes: Option<i64>,
    /// Files that are whole and checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shards_done: Option<i64>,
    /// Speed of the running download.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<i64>,
    /// Seconds until the download is done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<i64>,
    /// Name of the PersistentVolumeClaim.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub claim_name: Option<String>,
    /// Every byte is on the volume and has the published SHA-256.
    pub verified: bool,
}

/// Plan and measurement, side by side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct Measured {
    /// RAM in bytes: planned with every expert resident; measured as the kubelet counts it, mapped weights included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ram_bytes: Option<Pair>,
    /// Measured part of the RAM that is no file: heap, KV cache, buffers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub anonymous_bytes: Option<i64>,
    /// Memory limit of the server's container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit_bytes: Option<i64>,
    /// Seconds: planned for reading the weights once from one NVMe drive; measured from start to a passed self-test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<Pair>,
    /// Decode speed in thousandths of a token per second: planned as the memory's ceiling; measured over all answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub milli_tokens_per_second: Option<Pair>,
    /// Waits for a page from the disk per token of the last answer; 100 and more are thrashing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults_per_token: Option<i64>,
}

/// One figure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct Pair {
    /// From the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planned: Option<i64>,
    /// By the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<i64>,
}

/// One volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct VolumeStatus {
    /// Name of the PersistentVolumeClaim.
    #[schemars(length(max = 253))]
    pub claim_name: String,
    /// Quant of the weights on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub quant: Option<String>,
    /// Size requested.
    pub bytes: i64,
    /// Active (serves), Target (being made ready), Kept (for switching back), Orphaned (retained from a deleted
    /// KimiModel), Taken (of another KimiModel) or Deleting.
    #[schemars(length(max = 16))]
    pub state: String,
}

/// One change of the Service's selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct LastSwitch {
    /// Quant before; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub from: Option<String>,
    /// Quant after.
    #[schemars(length(max = 63))]
    pub to: String,
    /// When.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// Seconds during which no server was selected and running: 0 when the two ran side by side.
    pub outage_seconds: i64,
}

/// One change of what serves, or one that was tried and rolled back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = spec::optional_means_absent)]
pub struct HistoryEntry {
    /// When.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// Quant before; absent for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub from: Option<String>,
    /// Quant after, or the one that was rolled back.
    #[schemars(length(max = 63))]
    pub to: String,
    /// Whether it serves or was rolled back.
    pub outcome: Outcome,
    /// What the change was (Deployed, QuantEdited, SourceEdited, ServerEdited, EngineUpdated), or why it was rolled back.
    #[schemars(length(max = 128))]
    pub reason: String,
    /// Size of the weights that were fetched for it; 0 when they were on a volume already.
    pub bytes_fetched: i64,
    /// Seconds during which no server was selected and running.
    pub outage_seconds: i64,
}

/// How a change ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Outcome {
    Switched,
    RolledBack,
}

impl From<&HistoryEntry> for LastSwitch {
    fn from(entry: &HistoryEntry) -> Self {
        Self {
            from: entry.from.clone(),
            to: entry.to.clone(),
            time: entry.time,
            outage_seconds: entry.outage_seconds,
        }
    }
}

/// Seconds per phase.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = spec::optional_means_absent)]
pub struct Timings {
    /// Reading the repository's list and headers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inspect_seconds: Option<i64>,
    /// Download and verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fetch_seconds: Option<i64>,
    /// From the server pod's start to a passed self-test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_seconds: Option<i64>,
}

/// `k8s_openapi`'s Condition with the limits and the merge key that the API conventions ask for.
fn conditions_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 63, "pattern": "^[A-Za-z]+$"},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
                "lastTransitionTime": {"type": "string", "format": "date-time"},
                "reason": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
                "message": {"type": "string", "maxLength": 4096}
            }
        }
    })
}

fn bounded(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

impl std::ops::Deref for Spec {
    type Target = KimiModelSpec;

    fn deref(&self) -> &KimiModelSpec {
        &self.0
    }
}

impl From<&sizing::Plan> for PlanStatus {
    fn from(plan: &sizing::Plan) -> Self {
        Self {
            basis: match plan.basis {
                sizing::Basis::Catalogue => "catalogue",
                sizing::Basis::Exact => "exact",
            }
            .to_owned(),
            storage_bytes: bounded(plan.storage_bytes),
            ram_bytes: bounded(plan.ram_bytes),
            ram_min_bytes: bounded(plan.ram_min_bytes),
            vram_bytes: bounded(plan.vram_bytes),
            catalogue_vram_bytes: plan.catalogue_vram_bytes.map(bounded),
            gpu_experts: bounded(plan.gpu_experts),
            download_seconds: bounded(plan.download_seconds),
            milli_tokens_per_second: plan.milli_tokens_per_second.map(bounded),
            context_length: bounded(plan.context),
            fits: match plan.fits {
                sizing::Fits::Yes => "yes",
                sizing::Fits::Tight => "tight",
                sizing::Fits::No => "no",
            }
            .to_owned(),
            reason: plan.reason.chars().take(1024).collect(),
        }
    }
}

/// The CustomResourceDefinition as YAML, as committed under `crds/`.
///
/// # Errors
/// When the definition cannot be written as YAML, which is a bug.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    serde_yaml::to_string(&KimiModel::crd())
}
