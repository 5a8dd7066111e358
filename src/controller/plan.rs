//! The planner: from what is wanted and what is observed to the one next step and its reason. Pure and ordered; it must
//! know no client, no object shapes and no `.status`.

use std::time::Duration;

use crate::crd::LastSwitch;

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
    /// Point the Service at the target.
    Flip { switch: LastSwitch },
    /// The endpoints do not yet show the target alone.
    SettleEndpoints,
    /// Delete every other Deployment; their streams finish.
    DrainOld,
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
    DoesNotFit,
    ContextTooLong,
    AccelerationUnavailable,
    NoMatchingNode,
    Suspended,
    Inspecting,
    InspectFailed,
    Downloading,
    FetchPending,
    FetchFailed,
    Verified,
    Starting,
    Unschedulable,
    PodBlocked,
    Loading,
    StartFailed,
    MakingRoom,
    Switching,
    Settling,
    Draining,
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
            Self::DoesNotFit => "DoesNotFit",
            Self::ContextTooLong => "ContextTooLong",
            Self::AccelerationUnavailable => "AccelerationUnavailable",
            Self::NoMatchingNode => "NoMatchingNode",
            Self::Suspended => "Suspended",
            Self::Inspecting => "Inspecting",
            Self::InspectFailed => "InspectFailed",
            Self::Downloading => "Downloading",
            Self::FetchPending => "FetchPending",
            Self::FetchFailed => "FetchFailed",
            Self::Verified => "Verified",
            Self::Starting => "Starting",
            Self::Unschedulable => "Unschedulable",
            Self::PodBlocked => "PodBlocked",
            Self::Loading => "Loading",
            Self::StartFailed => "StartFailed",
            Self::MakingRoom => "MakingRoom",
            Self::Switching => "Switching",
            Self::Settling => "Settling",
            Self::Draining => "Draining",
            Self::Serving => "Serving",
            Self::ScaledToZero => "ScaledToZero",
            Self::Reported(word) => word,
        }
    }
}
