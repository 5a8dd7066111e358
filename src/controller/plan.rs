//! The planner: from what is wanted and what is observed to the one next step and its reason. Pure and ordered; it must
//! know no client, no object shapes and no `.status`.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use sizing::{Cause, Fits};
use spec::format_bytes;

use super::assess::{Assessment, Target};
use super::validate::{Execution, ValidModel};
use crate::crd::LastSwitch;
use crate::names;
use crate::snapshot::{BlockedCause, JobPhase, JobState, ServerPod, Snapshot, Workload};

/// A pod must have found no room for this long before the old server is stopped for it.
pub const ROOM_PATIENCE: SignedDuration = SignedDuration::from_secs(60);
/// Pause before a Job that failed for good is tried again: the hub or a Secret may have been mended meanwhile.
pub const PERMANENT_PAUSE: SignedDuration = SignedDuration::from_mins(10);
/// Pause before a Job that used up its retries is tried again; the Job itself backs off up to six minutes a retry.
pub const TRANSIENT_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// A Job's pod that finds no Node for this long is made anew, since its list of Nodes may be old.
pub const REPLACE_PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// How often a running download is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

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

/// The next step. Checks in order; the first that applies decides:
///
/// 1. deletion
/// 2. the spec
/// 3. suspension
/// 4. facts, or the catalogue's refusal before any Job
/// 5. the exact plan
/// 6. acceleration
/// 7. the artifact on its volume
/// 8. the target's Deployment
/// 9. its readiness
/// 10. the Service's selector
/// 11. its endpoints
/// 12. other Deployments
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
    let Some(target) = &assessment.target else {
        return refused_by_plan(assessment, None)
            .unwrap_or_else(|| inspect(model, assessment, snapshot));
    };
    let running = snapshot.workload(&target.workload);
    refused_by_plan(assessment, running)
        .or_else(|| refused_by_execution(model))
        .or_else(|| artifact(model, target, snapshot, running.is_some()))
        .or_else(|| start(model, target, snapshot, running))
        .or_else(|| switch(model, target, snapshot))
        .unwrap_or_else(|| serving(model, target))
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
        Execution::Cpu | Execution::CpuFallback => None,
        Execution::Denied => Some(Decision::refused(
            Reason::AccelerationUnavailable,
            format!(
                "the engine has no GPU path yet: set serving.cpuFallback: Allow to serve on the CPU of a Node with {}, \
                 or hardware: CPU",
                model.hardware_name
            ),
        )),
    }
}

/// Step 4: the facts are not known yet.
fn inspect(model: &ValidModel, assessment: &Assessment, snapshot: &Snapshot) -> Decision {
    let source = &model.source;
    let Some(job) = snapshot.inspect_job(&source.id) else {
        let message = format!(
            "reading {} of {} at {}",
            source.quant, source.repo, source.revision
        );
        return Decision::new(Step::Inspect, Reason::Inspecting, message);
    };
    if let Some(decision) = retry(
        job,
        &assessment.inspect_inputs,
        snapshot.now,
        Step::WaitInspect,
        Reason::InspectFailed,
    ) {
        return decision;
    }
    if let JobPhase::Succeeded { at } = job.phase {
        // Facts would have made a target: the report cannot be read, or its pod has not been seen yet.
        let left = TRANSIENT_PAUSE - snapshot.now.duration_since(at);
        let message = format!("Job {} ended and its report cannot be read", job.name);
        return if left > SignedDuration::ZERO {
            Decision::new(Step::WaitInspect, Reason::Inspecting, message).after(left)
        } else {
            Decision::new(
                Step::RetryJob {
                    name: job.name.clone(),
                },
                Reason::InspectFailed,
                message,
            )
        };
    }
    waiting(
        job,
        Step::WaitInspect,
        Reason::Inspecting,
        format!("reading {} of {}", source.quant, source.repo),
    )
}

/// Step 7: the artifact is not on its volume yet. `committed`: the target's Deployment exists already.
fn artifact(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    committed: bool,
) -> Option<Decision> {
    let claim = snapshot.claim(&target.artifact);
    let verified = names::verified_value(&target.facts);
    if claim.is_some_and(|claim| {
        claim.verified.as_deref() == Some(&verified) && (committed || !claim.deleting)
    }) {
        return None;
    }
    let name = names::claim(&model.name, &target.artifact);
    if claim.is_some_and(|claim| claim.deleting) {
        let message =
            format!("PersistentVolumeClaim {name} is being deleted: waiting for it to go");
        return Some(Decision::new(
            Step::WaitFetch,
            Reason::FetchPending,
            message,
        ));
    }
    let (Some(claim), Some(job)) = (claim, snapshot.fetch_job(&target.artifact)) else {
        return Some(no_node(model, target).unwrap_or_else(|| {
            let message = format!(
                "{} in {} shards into PersistentVolumeClaim {name}",
                format_bytes(target.facts.bytes),
                target.facts.shards
            );
            Decision::new(Step::Fetch, Reason::Downloading, message)
        }));
    };
    if let Some(decision) = retry(
        job,
        &target.fetch_inputs,
        snapshot.now,
        Step::WaitFetch,
        Reason::FetchFailed,
    ) {
        return Some(decision);
    }
    Some(match job.phase {
        // A Job older than its claim filled an earlier one.
        JobPhase::Succeeded { .. } if job.created < claim.created => Decision::new(
            Step::RetryJob {
                name: job.name.clone(),
            },
            Reason::Downloading,
            "the volume is new: again",
        ),
        JobPhase::Succeeded { .. } => Decision::new(
            Step::MarkVerified,
            Reason::Verified,
            format!("{} fetched and verified", format_bytes(target.facts.bytes)),
        ),
        JobPhase::Active | JobPhase::Failed { .. } => {
            let message = format!("downloading {}", format_bytes(target.facts.bytes));
            waiting(job, Step::WaitFetch, Reason::Downloading, message).every(PROGRESS_INTERVAL)
        }
    })
}

/// Whether a Job has to be made anew, or why it must wait for that.
fn retry(
    job: &JobState,
    inputs: &str,
    now: Timestamp,
    wait: Step,
    failed: Reason,
) -> Option<Decision> {
    let again = |why: &str| {
        Some(Decision::new(
            Step::RetryJob {
                name: job.name.clone(),
            },
            failed.clone(),
            format!("{}: {why}", job.name),
        ))
    };
    if job.deleting {
        let message = format!("waiting for the pods of Job {} to end", job.name);
        return Some(Decision::new(wait, failed, message));
    }
    let edited = job.inputs != inputs;
    match job.phase {
        JobPhase::Failed { .. } if edited => again("the spec was edited, trying again"),
        JobPhase::Failed { at, permanent } => {
            let pause = if permanent {
                PERMANENT_PAUSE
            } else {
                TRANSIENT_PAUSE
            };
            let left = pause - now.duration_since(at);
            if left <= SignedDuration::ZERO {
                return again("trying again");
            }
            let (reason, message) = match &job.failure {
                Some(failure) => (
                    Reason::Reported(failure.reason.clone()),
                    failure.message.clone(),
                ),
                None => (
                    failed,
                    format!("Job {} failed; see its pods' logs", job.name),
                ),
            };
            Some(
                Decision::new(wait, reason, message)
                    .stalled(true)
                    .after(left),
            )
        }
        JobPhase::Active if edited && job.failure.is_some() => {
            again("the spec was edited, trying again")
        }
        JobPhase::Active => {
            let blocked = job.blocked.as_ref()?;
            let lost = blocked.cause == BlockedCause::Unschedulable
                && now.duration_since(blocked.since) >= REPLACE_PATIENCE;
            if lost {
                again("its pod finds no Node, choosing Nodes anew")
            } else {
                None
            }
        }
        JobPhase::Succeeded { .. } => None,
    }
}

/// A Job that runs, with what its pods complain about.
fn waiting(job: &JobState, step: Step, reason: Reason, message: String) -> Decision {
    if let Some(blocked) = &job.blocked {
        let reason = match blocked.cause {
            BlockedCause::Unschedulable => Reason::Unschedulable,
            BlockedCause::Container => Reason::PodBlocked,
        };
        return Decision::new(step, reason, blocked.message.clone())
            .stalled(true)
            .after(ROOM_PATIENCE);
    }
    match &job.failure {
        Some(failure) => {
            let message = format!("{} (the Job tries again)", failure.message);
            Decision::new(step, Reason::Reported(failure.reason.clone()), message)
        }
        None => Decision::new(step, reason, message),
    }
}

/// No Node that the hardware selects holds the plan.
fn no_node(model: &ValidModel, target: &Target) -> Option<Decision> {
    let nodes = &model.nodes;
    let message = match nodes.matching.first() {
        Some(largest) if largest.memory >= target.memory_request => return None,
        Some(largest) => format!(
            "the server requests {} of memory and the largest Node for {}, {}, has {} allocatable",
            format_bytes(target.memory_request),
            model.hardware_name,
            largest.name,
            format_bytes(largest.memory)
        ),
        None if model.hardware.is_cpu() => "no Node is ready and schedulable".to_owned(),
        None => {
            let seen: Vec<&str> = nodes.products_seen.iter().map(String::as_str).collect();
            let seen = if seen.is_empty() {
                "none".to_owned()
            } else {
                seen.join(", ")
            };
            format!(
                "no usable Node has {} in its label {} ({}); labels seen: {seen}",
                model.hardware_name,
                sizing::hardware::PRODUCT_LABEL,
                model.hardware.node_labels.join(" or ")
            )
        }
    };
    Some(Decision::refused(Reason::NoMatchingNode, message))
}

/// Steps 8 and 9: the target's Deployment and its pod.
fn start(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    running: Option<&Workload>,
) -> Option<Decision> {
    let quant = &target.facts.quant;
    let Some(workload) = running else {
        let message = format!("starting a server with {quant}");
        return Some(Decision::new(Step::Start, Reason::Starting, message));
    };
    if workload.deleting {
        let message = format!("waiting for an earlier Deployment {} to go", workload.name);
        return Some(Decision::new(Step::WaitReady, Reason::Starting, message));
    }
    if model.replicas == 0 || workload.ready_pods() > 0 {
        return None;
    }
    let old = snapshot.active().filter(|active| active.id != workload.id);
    let pods = || workload.pods.iter().filter(|pod| !pod.terminating);
    if let Some(blocked) = pods().find_map(|pod| pod.blocked.as_ref()) {
        let waited = snapshot.now.duration_since(blocked.since);
        return Some(match (blocked.cause, old) {
            (BlockedCause::Container, _) => {
                Decision::new(Step::WaitReady, Reason::PodBlocked, blocked.message.clone())
                    .stalled(true)
            }
            (BlockedCause::Unschedulable, Some(old)) if old.replicas == 0 => {
                let message = format!(
                    "the server with {} ends its streams to make room",
                    old.quant
                );
                Decision::new(Step::WaitReady, Reason::MakingRoom, message)
            }
            (BlockedCause::Unschedulable, Some(old)) if holds_room(model, target, old) => {
                let message = format!(
                    "no room for {quant} beside {}: {}",
                    old.quant, blocked.message
                );
                if waited >= ROOM_PATIENCE {
                    Decision::new(Step::StopOld, Reason::MakingRoom, message)
                } else {
                    Decision::new(Step::WaitReady, Reason::Unschedulable, message)
                        .after(ROOM_PATIENCE - waited)
                }
            }
            (BlockedCause::Unschedulable, _) => Decision::new(
                Step::WaitReady,
                Reason::Unschedulable,
                blocked.message.clone(),
            )
            .stalled(waited >= ROOM_PATIENCE)
            .after(ROOM_PATIENCE),
        });
    }
    if let Some((failure, pod)) =
        pods().find_map(|pod| pod.failure.as_ref().map(|failure| (failure, pod)))
    {
        let message = format!(
            "{} (pod {} started {} times)",
            failure.message,
            pod.name,
            pod.restarts.saturating_add(1)
        );
        return Some(
            Decision::new(
                Step::WaitReady,
                Reason::Reported(failure.reason.clone()),
                message,
            )
            .stalled(true),
        );
    }
    if let Some(pod) = pods().find(|pod| pod.restarts > 0) {
        return Some(crashed(pod));
    }
    let message = format!("{quant} loads and tests itself");
    Some(Decision::new(Step::WaitReady, Reason::Loading, message))
}

fn crashed(pod: &ServerPod) -> Decision {
    let message = format!(
        "pod {} ended {} times without a report; see its logs",
        pod.name, pod.restarts
    );
    Decision::new(Step::WaitReady, Reason::StartFailed, message).stalled(true)
}

/// Whether stopping `old` can make room: one of its pods is on a Node where the target's pod could be. Otherwise an
/// outage would buy nothing.
fn holds_room(model: &ValidModel, target: &Target, old: &Workload) -> bool {
    old.pods
        .iter()
        .filter_map(|pod| pod.node.as_deref())
        .any(|name| {
            model
                .nodes
                .matching
                .iter()
                .any(|node| node.name == name && node.memory >= target.memory_request)
        })
}

/// Steps 10 to 12: the endpoint, once the target is ready.
fn switch(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    let to = &target.facts.quant;
    let service = snapshot.service.as_ref();
    if service.and_then(|service| service.selected.as_ref()) != Some(&target.workload) {
        let old = snapshot
            .active()
            .filter(|active| active.id != target.workload);
        let stopped_at = old
            .filter(|old| old.replicas == 0)
            .and_then(|old| old.stopped_at);
        let switch = LastSwitch {
            from: old.map(|old| old.quant.clone()),
            to: to.clone(),
            time: snapshot.now,
            outage_seconds: stopped_at
                .map_or(0, |at| snapshot.now.duration_since(at).as_secs().max(0)),
        };
        let message = format!("{to} passed its self-test: the endpoint moves to it");
        return Some(Decision::new(
            Step::Flip { switch },
            Reason::Switching,
            message,
        ));
    }
    let endpoints = snapshot
        .workload(&target.workload)
        .map_or(0, |workload| workload.ready_endpoints);
    let foreign = service.map_or(0, |service| service.foreign_endpoints);
    if foreign > 0 || (endpoints == 0 && model.replicas > 0) {
        let message = format!("{endpoints} endpoints of {to}, {foreign} of others");
        return Some(Decision::new(
            Step::SettleEndpoints,
            Reason::Settling,
            message,
        ));
    }
    let old = snapshot
        .workloads
        .iter()
        .find(|other| other.id != target.workload && !other.deleting)?;
    let message = format!("the server with {} ends its streams and goes", old.quant);
    Some(Decision::new(Step::DrainOld, Reason::Draining, message))
}

fn serving(model: &ValidModel, target: &Target) -> Decision {
    let quant = &target.facts.quant;
    if model.replicas == 0 {
        return Decision::new(
            Step::Serving,
            Reason::ScaledToZero,
            format!("{quant} is kept; serving.replicas is 0"),
        );
    }
    Decision::new(
        Step::Serving,
        Reason::Serving,
        format!("{quant} answers on port {}", model.port),
    )
}
