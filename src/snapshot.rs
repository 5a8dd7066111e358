//! Everything a decision may look at: one observed state of the cluster around one KimiModel, as plain data. It must
//! know no client and holds no `.status` of the KimiModel, so that deleting the status can change no decision.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sizing::Facts;
use sizing::facts::Failure;
use spec::KimiModelSpec;

use crate::controller::build::Deletion;
use crate::controller::progress::Progress;
use crate::controller::usage::Usage;
use crate::crd::{HistoryEntry, LastSwitch};

/// One look at the cluster.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub model: ModelMeta,
    pub spec: KimiModelSpec,
    /// What stands where `spec.quantFrom` points to, when the spec has one.
    pub quant_from: Option<ConfigValue>,
    pub nodes: Vec<Node>,
    /// Inspect and fetch Jobs of this model, those being deleted too.
    pub jobs: Vec<JobState>,
    /// PVCs of this model.
    pub claims: Vec<Claim>,
    /// Deployments of this model with their pods.
    pub workloads: Vec<Workload>,
    pub service: Option<ServiceState>,
    /// Budgets and network policies of this model that are not being deleted, as what would be deleted.
    pub guards: Vec<Deletion>,
    pub now: Timestamp,
}

/// What a key of a ConfigMap holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigValue {
    Text(String),
    NoConfigMap,
    /// The ConfigMap has these keys and not the one asked for.
    NoKey {
        has: Vec<String>,
    },
}

/// Identity of the KimiModel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelMeta {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub generation: i64,
    pub created: Option<Timestamp>,
    /// A deletion timestamp is set: nothing more is made for it.
    pub deleting: bool,
    /// Hash of the restart annotation's value.
    pub restart: Option<String>,
    /// Hash of the refetch annotation's value.
    pub refetch: Option<String>,
}

/// What placing a pod needs to know of a Node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// `status.allocatable.memory`, bytes.
    pub memory: u64,
    /// `status.allocatable` of [`crate::names::GPU_RESOURCE`].
    pub gpus: u64,
    /// Condition Ready is True and the Node is not cordoned.
    pub usable: bool,
}

/// What a Job is for; the id is the value of its source or artifact label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobKind {
    Inspect { source: String },
    Fetch { artifact: String },
}

/// One Job with what its pods said.
#[derive(Clone, Debug, PartialEq)]
pub struct JobState {
    pub name: String,
    pub uid: String,
    pub kind: JobKind,
    /// Value of [`crate::names::ANNOTATION_INPUTS`], empty when absent.
    pub inputs: String,
    /// Made for this KimiModel, not for a deleted one of the same name.
    pub ours: bool,
    pub phase: JobPhase,
    /// `spec.suspend`.
    pub suspended: bool,
    pub deleting: bool,
    pub created: Timestamp,
    /// What the newest terminated pod reported as an error; the Job may still be retrying.
    pub failure: Option<Failure>,
    /// Inspect Jobs: the facts of the successful pod's termination message.
    pub facts: Option<Facts>,
    /// Why the newest pod is not running yet, if it is not.
    pub blocked: Option<Blocked>,
    /// Fetch Jobs: the running pod's own `/progress`. For the status only: no decision reads it.
    pub progress: Option<Progress>,
}

/// How far a Job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPhase {
    /// No condition Complete or Failed yet.
    Active,
    Succeeded {
        at: Timestamp,
    },
    /// `permanent`: a pod ended with exit code 2, so the same words would fail again.
    Failed {
        at: Timestamp,
        permanent: bool,
    },
}

/// A pod that cannot run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    pub cause: BlockedCause,
    /// When the scheduler or the kubelet first said so.
    pub since: Timestamp,
    pub message: String,
}

/// What keeps a pod from running.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockedCause {
    /// Condition PodScheduled is False with reason Unschedulable.
    Unschedulable,
    /// A container waits with ErrImagePull, ImagePullBackOff, InvalidImageName, CreateContainerConfigError or
    /// CreateContainerError.
    Container,
    /// There is no pod: the API server refuses to make it, by a quota or an admission policy.
    Refused,
}

/// Whose a PVC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Us,
    /// The KimiModel that it belonged to is gone.
    Nobody,
    /// Another KimiModel that exists, by name.
    Other(String),
}

/// One PVC of the model, or of a deleted one of the same name.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub name: String,
    pub uid: String,
    pub holder: Holder,
    /// Named by `spec.source.pvc`: its contents and its life are the user's, and what we know of it is in annotations.
    pub given: bool,
    /// The owner annotation is ours.
    pub marked: bool,
    /// An owner reference to us: the claim goes with the KimiModel.
    pub goes_along: bool,
    /// A pod mounts it, even one that has ended: until that is gone, a deleted claim would only be going.
    pub mounted: bool,
    /// When the endpoint last moved to its weights.
    pub served: Option<Timestamp>,
    /// Value of the artifact label.
    pub artifact: String,
    /// Value of the source label.
    pub source: String,
    /// The facts annotation, if it parses.
    pub facts: Option<Facts>,
    /// The verified annotation.
    pub verified: Option<String>,
    /// The choice annotation.
    pub choice: Option<String>,
    /// The refetched annotation.
    pub refetched: Option<String>,
    /// The Node for which the volume was made, where it was made for one.
    pub node: Option<String>,
    /// `spec.resources.requests.storage`, bytes.
    pub requested: u64,
    pub storage_class: Option<String>,
    pub access_modes: Vec<String>,
    /// What the provisioner last said of a claim that it cannot provide a volume for.
    pub refused: Option<String>,
    pub bound: bool,
    pub deleting: bool,
    pub created: Timestamp,
}

/// One server Deployment with its pods.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Name of the Deployment.
    pub name: String,
    pub uid: String,
    /// Value of the workload label.
    pub id: String,
    /// Value of the artifact label.
    pub artifact: String,
    /// The quant annotation.
    pub quant: String,
    /// Value of [`crate::names::ANNOTATION_INPUTS`].
    pub inputs: Option<String>,
    /// What its container's arguments show of the spec: all there is where the annotation above is missing, on what an
    /// operator made that did not write it yet.
    pub shown: Vec<String>,
    /// Its pods request a GPU.
    pub gpu: bool,
    /// Its weights are on a volume of the user's, which no watch shows once the spec names it no more.
    pub on_given_volume: bool,
    /// `spec.replicas`.
    pub replicas: i32,
    /// The stopped-at annotation.
    pub stopped_at: Option<Timestamp>,
    /// The dark-at annotation.
    pub dark_at: Option<Timestamp>,
    /// The emptied-at annotation.
    pub emptied_at: Option<Timestamp>,
    pub deleting: bool,
    pub created: Timestamp,
    pub pods: Vec<ServerPod>,
    /// Why it has no pod, in the words of its ReplicaSet.
    pub refused: Option<Blocked>,
    /// Ready endpoints of the Service's EndpointSlices that point at this workload's pods.
    pub ready_endpoints: usize,
}

/// One server pod.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerPod {
    pub name: String,
    pub node: Option<String>,
    pub ready: bool,
    /// A deletion timestamp is set: it drains.
    pub terminating: bool,
    pub blocked: Option<Blocked>,
    /// When a Node was found for it.
    pub scheduled: Option<Timestamp>,
    /// What the container reported when it last ended.
    pub failure: Option<Failure>,
    /// A container ended with exit code 2: the same words would fail again.
    pub permanent: bool,
    pub restarts: u32,
    /// When the running container started.
    pub started: Option<Timestamp>,
    /// When a container of it last ended.
    pub ended: Option<Timestamp>,
    /// When it became ready.
    pub ready_since: Option<Timestamp>,
    /// What it measured of itself. For the status only: no decision reads it.
    pub usage: Option<Usage>,
}

/// The Service of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceState {
    /// The workload id in its selector; `None` when absent or [`crate::names::NO_WORKLOAD`].
    pub selected: Option<String>,
    /// Ready endpoints that belong to no workload of `selected`: a switch that has not settled.
    pub foreign_endpoints: usize,
    /// The selected annotation, if it parses and is about `selected`.
    pub leads_to: Option<Selected>,
    /// The last-switch annotation, if it parses.
    pub last_switch: Option<LastSwitch>,
    /// The history annotation, newest first; empty if it does not parse.
    pub history: Vec<HistoryEntry>,
    /// The given-up annotation, if it parses.
    pub given_up: Option<GivenUp>,
}

/// What a selector leads to, in the words of the target that it was set for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Selected {
    pub workload: String,
    pub artifact: String,
    pub quant: String,
    /// The inputs annotation of its Deployment, where that has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<String>,
}

/// A target that was rolled back: its weights verify, and it could not take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GivenUp {
    /// When; the time of its entry in the history.
    pub at: Timestamp,
    /// Generation of the spec that asked for it: a later one is tried.
    pub generation: i64,
    /// Which weights, in which workload, and the hash of the spec's words in that.
    pub artifact: String,
    pub workload: String,
    pub inputs: String,
    /// Its quant.
    pub quant: String,
    /// Why, as a condition's reason and in words.
    pub reason: String,
    pub message: String,
    /// Since when the old server, stopped for it, had not answered; absent once it answers again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dark_since: Option<Timestamp>,
}

impl Snapshot {
    /// The inspect Job of a source.
    #[must_use]
    pub fn inspect_job(&self, source: &str) -> Option<&JobState> {
        self.jobs
            .iter()
            .find(|job| matches!(&job.kind, JobKind::Inspect { source: id } if id == source))
    }

    /// The fetch Job of an artifact.
    #[must_use]
    pub fn fetch_job(&self, artifact: &str) -> Option<&JobState> {
        self.jobs
            .iter()
            .find(|job| matches!(&job.kind, JobKind::Fetch { artifact: id } if id == artifact))
    }

    /// The claim of an artifact.
    #[must_use]
    pub fn claim(&self, artifact: &str) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.artifact == artifact)
    }

    /// The volume that `spec.source.pvc` names, if it exists.
    #[must_use]
    pub fn given(&self) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.given)
    }

    /// Whether the weights of a server are still on their volume, as far as can be known: a volume of the user's is the
    /// user's to keep.
    #[must_use]
    pub fn keeps_weights_of(&self, workload: &Workload) -> bool {
        match self.claim(&workload.artifact) {
            Some(claim) => !claim.deleting,
            None => workload.on_given_volume,
        }
    }

    /// The Deployment of a workload id.
    #[must_use]
    pub fn workload(&self, id: &str) -> Option<&Workload> {
        self.workloads.iter().find(|workload| workload.id == id)
    }

    /// What clients reach now: the workload that the Service selects, if it exists. Where the Service itself is gone,
    /// the oldest workload with a ready pod, so that making the Service anew interrupts nothing else.
    #[must_use]
    pub fn active(&self) -> Option<&Workload> {
        match &self.service {
            Some(service) => self.workload(service.selected.as_deref()?),
            None => self
                .workloads
                .iter()
                .filter(|workload| workload.ready_pods() > 0 && !workload.deleting)
                .min_by(|a, b| a.created.cmp(&b.created).then_with(|| a.name.cmp(&b.name))),
        }
    }
}

impl Workload {
    /// True while one of its pods is on a Node and stays there: what it mounts is not deleted before it goes.
    #[must_use]
    pub fn holds_its_volume(&self) -> bool {
        let mut pods = self.pods.iter();
        pods.any(|pod| pod.node.is_some() && !pod.terminating)
    }

    /// Pods that answer.
    #[must_use]
    pub fn ready_pods(&self) -> usize {
        self.pods
            .iter()
            .filter(|pod| pod.ready && !pod.terminating)
            .count()
    }

    /// Since when nothing of a stopped server has answered: since it was stopped, where nobody saw its pods end.
    #[must_use]
    pub fn dark_since(&self) -> Option<Timestamp> {
        self.dark_at
            .or(self.stopped_at)
            .filter(|_| self.replicas == 0)
    }
}

impl ServerPod {
    /// How many times its container has ended.
    #[must_use]
    pub fn ends(&self) -> u32 {
        let ended = self.ended.is_some() && !self.runs_again();
        self.restarts.saturating_add(u32::from(ended))
    }

    /// True if a container was started after the last one ended: what ended it may be over.
    #[must_use]
    pub fn runs_again(&self) -> bool {
        match (self.started, self.ended) {
            (Some(started), Some(ended)) => started >= ended,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}
