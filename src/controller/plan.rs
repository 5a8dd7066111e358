//! The planner: from what is wanted and what is observed to the one next step and its reason. Pure and ordered; it must
//! know no client, no object shapes and no `.status`.

mod artifact;
pub mod history;
mod rollback;
mod rollout;
pub mod storage;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
mod volumes;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sizing::{Cause, Fits};

use super::assess::Assessment;
use super::validate::{Execution, ValidModel};
use crate::crd::HistoryEntry;
use crate::snapshot::{GivenUp, Snapshot, Workload};

/// A pod must have found no room for this long before the old server is stopped for it.
pub const ROOM_PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// What to do now. Steps that begin something are repeated until the cluster shows it done, so each is idempotent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The KimiModel is being deleted: owner references do the rest.
    Deleting,
    /// The spec, the plan or the cluster says no. What serves keeps serving; nothing new starts.
    Refused,
    /// Pods and downloads are stopped, weights kept.
    Suspended,
    /// Make the inspect Job.
    Inspect,
    /// The inspect Job runs, or its pause before the next try runs.
    WaitInspect,
    /// Delete a failed Job, so that the next step makes it anew.
    RetryJob { name: String },
    /// Take over a retained volume of a deleted KimiModel of this name; what it holds is checked next.
    Adopt { claim: String },
    /// Replace: stop the old server, and delete its weights once its streams have ended.
    Free,
    /// Delete the volume that was lost with its Node.
    Abandon { claim: String, uid: String },
    /// Make the volume and the fetch Job.
    Fetch,
    /// The fetch Job runs, or its pause before the next try runs.
    WaitFetch,
    /// Write down on the PVC that every byte is there and checked.
    MarkVerified,
    /// Make the target's Deployment (beside the active one, if there is one).
    Start,
    /// The target's pod is scheduled, loads, or tests itself.
    WaitReady,
    /// One slot: stop the active Deployment, because the target's pod finds no room beside it.
    StopOld,
    /// Write down why the target cannot take over, remove its Deployment, and start the old server if it was stopped.
    GiveUp {
        record: GivenUp,
        entry: HistoryEntry,
    },
    /// The target was given up: the old server goes on until the spec changes.
    RolledBack,
    /// Point the Service at the target.
    Flip { entry: HistoryEntry },
    /// The endpoints do not yet show the target alone.
    SettleEndpoints,
    /// Delete every other Deployment; their streams finish.
    DrainOld,
    /// Delete the volume of weights that `storage.keepQuants` no longer keeps.
    Prune { claim: String, uid: String },
    /// Nothing to do.
    Serving,
}

/// The next step, why, and when to look again if nothing else happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub step: Step,
    pub reason: Reason,
    /// What is going on, and what a person should do where a person must.
    pub message: String,
    pub requeue: Option<Duration>,
    /// True when only a person (or a retry in minutes) moves this on: kstatus' Stalled.
    pub stalled: bool,
}

/// A reason of a decision, as conditions carry it: one CamelCase word. Jobs and servers report their own words in
/// [`Reason::Reported`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    Deleting,
    InvalidSpec,
    UnknownModel,
    QuantSourceMissing,
    PodFieldForbidden,
    DoesNotFit,
    ContextTooLong,
    AccelerationUnavailable,
    NoMatchingNode,
    Suspended,
    Inspecting,
    InspectFailed,
    Adopting,
    VolumeTaken,
    VolumeMissing,
    Downloading,
    FetchPending,
    FetchFailed,
    FreeingStorage,
    InsufficientStorage,
    ProvisioningFailed,
    StorageUnchangeable,
    Verified,
    Starting,
    Unschedulable,
    NodeLost,
    PodBlocked,
    Loading,
    StartFailed,
    MakingRoom,
    RolledBack,
    Switching,
    Settling,
    Draining,
    Pruning,
    Serving,
    ScaledToZero,
    /// The reason that a worker pod gave.
    Reported(String),
}

impl Reason {
    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Deleting => "Deleting",
            Self::InvalidSpec => "InvalidSpec",
            Self::UnknownModel => "UnknownModel",
            Self::QuantSourceMissing => "QuantSourceMissing",
            Self::PodFieldForbidden => "PodFieldForbidden",
            Self::DoesNotFit => "DoesNotFit",
            Self::ContextTooLong => "ContextTooLong",
            Self::AccelerationUnavailable => "AccelerationUnavailable",
            Self::NoMatchingNode => "NoMatchingNode",
            Self::Suspended => "Suspended",
            Self::Inspecting => "Inspecting",
            Self::InspectFailed => "InspectFailed",
            Self::Adopting => "Adopting",
            Self::VolumeTaken => "VolumeTaken",
            Self::VolumeMissing => "VolumeMissing",
            Self::Downloading => "Downloading",
            Self::FetchPending => "FetchPending",
            Self::FetchFailed => "FetchFailed",
            Self::FreeingStorage => "FreeingStorage",
            Self::InsufficientStorage => "InsufficientStorage",
            Self::ProvisioningFailed => "ProvisioningFailed",
            Self::StorageUnchangeable => "StorageUnchangeable",
            Self::Verified => "Verified",
            Self::Starting => "Starting",
            Self::Unschedulable => "Unschedulable",
            Self::NodeLost => "NodeLost",
            Self::PodBlocked => "PodBlocked",
            Self::Loading => "Loading",
            Self::StartFailed => "StartFailed",
            Self::MakingRoom => "MakingRoom",
            Self::RolledBack => "RolledBack",
            Self::Switching => "Switching",
            Self::Settling => "Settling",
            Self::Draining => "Draining",
            Self::Pruning => "Pruning",
            Self::Serving => "Serving",
            Self::ScaledToZero => "ScaledToZero",
            Self::Reported(word) => word,
        }
    }
}

/// The next step. Checks in order; the first that applies decides:
///
/// 1. deletion
/// 2. the spec
/// 3. suspension
/// 4. the volume that the spec names; facts, or the catalogue's refusal before any Job
/// 5. the exact plan
/// 6. acceleration
/// 7. a rollback of this very spec
/// 8. whose the artifact's volume is, whether it was lost with its Node, and the artifact on it
/// 9. the target's Deployment
/// 10. its readiness, or its rollback
/// 11. the Service's selector
/// 12. its endpoints
/// 13. other Deployments
/// 14. other volumes
#[must_use]
pub fn plan(assessment: &Assessment, snapshot: &Snapshot) -> Decision {
    if snapshot.model.deleting {
        return Decision::new(
            Step::Deleting,
            Reason::Deleting,
            "the KimiModel is being deleted",
        );
    }
    let model = match &assessment.model {
        Ok(model) => model,
        Err(refusal) => return Decision::refused(refusal.reason.clone(), refusal.message.clone()),
    };
    if model.suspend {
        return Decision::new(
            Step::Suspended,
            Reason::Suspended,
            "spec.suspend is true: pods are stopped, weights kept",
        );
    }
    if let Some(refused) = volumes::given(model, snapshot) {
        return refused;
    }
    let Some(target) = &assessment.target else {
        return refused_by_plan(assessment, None)
            .unwrap_or_else(|| artifact::inspect(model, assessment, snapshot));
    };
    let running = snapshot.workload(&target.workload);
    refused_by_plan(assessment, running)
        .or_else(|| refused_by_execution(model))
        .or_else(|| rollback::rolled_back(model, target, snapshot))
        .or_else(|| volumes::adopt(target, snapshot))
        .or_else(|| volumes::lost(model, target, snapshot))
        .or_else(|| {
            if model.source.volume.is_some() {
                return volumes::record(model, target, snapshot);
            }
            // A claim that is being deleted serves until the last pod has gone.
            let mounted = running.is_some_and(Workload::holds_its_volume);
            artifact::artifact(model, target, snapshot, mounted)
        })
        .or_else(|| rollout::start(model, target, snapshot, running))
        .or_else(|| rollout::switch(model, target, snapshot))
        .or_else(|| volumes::prune(model, target, snapshot))
        .unwrap_or_else(|| rollout::serving(model, target))
}

impl Decision {
    fn new(step: Step, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            step,
            reason,
            message: message.into(),
            requeue: None,
            stalled: false,
        }
    }

    fn refused(reason: Reason, message: String) -> Self {
        Self {
            stalled: true,
            ..Self::new(Step::Refused, reason, message)
        }
    }

    fn after(self, wait: SignedDuration) -> Self {
        // A second more than asked, so that the deadline has passed when the step is looked at again.
        let wait = Duration::try_from(wait).unwrap_or_default() + Duration::from_secs(1);
        Self {
            requeue: Some(wait),
            ..self
        }
    }

    /// Looked at again at this moment at the latest.
    fn by(self, at: Timestamp, now: Timestamp) -> Self {
        let sooner = self.requeue;
        let later = self.after(at.duration_since(now));
        Self {
            requeue: later.requeue.into_iter().chain(sooner).min(),
            ..later
        }
    }

    fn every(self, interval: Duration) -> Self {
        Self {
            requeue: Some(interval),
            ..self
        }
    }

    fn stalled(self, stalled: bool) -> Self {
        Self { stalled, ..self }
    }
}

/// The plan's refusal. RAM of Nodes counts only before the target exists: a Node that leaves later must not refuse what
/// already has a place.
fn refused_by_plan(assessment: &Assessment, running: Option<&Workload>) -> Option<Decision> {
    let plan = assessment.plan.as_ref()?;
    if plan.fits != Fits::No {
        return None;
    }
    let reason = match plan.cause {
        Cause::ContextTooLong => Reason::ContextTooLong,
        Cause::RamTooSmall if running.is_some() => return None,
        Cause::RamTooSmall
        | Cause::VramTooSmall
        | Cause::OutOfRange
        | Cause::Fits
        | Cause::TightVram
        | Cause::StreamsFromDisk => Reason::DoesNotFit,
    };
    Some(Decision::refused(reason, plan.reason.clone()))
}

fn refused_by_execution(model: &ValidModel) -> Option<Decision> {
    match model.execution {
        Execution::Cpu | Execution::CpuFallback => return None,
        Execution::Denied => {}
    }
    let way_out = "set serving.cpuFallback: Allow to serve on the CPU, or hardware: CPU";
    Some(match artifact::no_gpu_node(model) {
        Some(words) => Decision::refused(Reason::NoMatchingNode, format!("{words}; {way_out}")),
        None => {
            let message = format!(
                "the engine has no path for {} yet: {way_out}",
                model.hardware_name
            );
            Decision::refused(Reason::AccelerationUnavailable, message)
        }
    })
}
