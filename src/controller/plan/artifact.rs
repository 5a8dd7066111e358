//! The planner's checks up to a verified artifact: inspect Job, volume, fetch Job, and when a failed Job is made anew.
//! It must know nothing about servers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use spec::format_bytes;

use super::{Decision, ROOM_PATIENCE, Reason, Step, storage};
use crate::controller::assess::{Assessment, Target};
use crate::controller::validate::ValidModel;
use crate::names;
use crate::snapshot::{BlockedCause, JobPhase, JobState, Snapshot};

/// Pause before a Job that failed for good is tried again: the hub or a Secret may have been mended meanwhile.
pub(super) const PERMANENT_PAUSE: SignedDuration = SignedDuration::from_mins(10);
/// Pause before a Job that used up its retries is tried again; the Job itself backs off up to six minutes a retry.
pub(super) const TRANSIENT_PAUSE: SignedDuration = SignedDuration::from_mins(1);
/// A Job's pod that finds no Node for this long is made anew, since its list of Nodes may be old.
pub(super) const REPLACE_PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// How often a running download is looked at.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Step 4: the facts are not known yet.
pub(super) fn inspect(
    model: &ValidModel,
    assessment: &Assessment,
    snapshot: &Snapshot,
) -> Decision {
    let source = &model.source;
    let Some(job) = snapshot.inspect_job(&source.id) else {
        let message = match &source.volume {
            Some(volume) => format!(
                "checking {} on PersistentVolumeClaim {volume}",
                source.quant
            ),
            None => format!(
                "reading {} of {} at {}",
                source.quant, source.repo, source.revision
            ),
        };
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

/// Step 8: the artifact is not on its volume yet. `mounted`: a pod of the target holds the volume already.
pub(super) fn artifact(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    mounted: bool,
) -> Option<Decision> {
    let claim = snapshot.claim(&target.artifact);
    if let Some(refusal) = claim.and_then(|claim| storage::unchangeable(model, claim)) {
        return Some(refusal);
    }
    let verified = names::verified_value(&target.facts);
    // Asked for by the user, and not done with this volume yet.
    let again =
        claim.is_some_and(|claim| model.refetch.is_some() && claim.refetched != model.refetch);
    if claim.is_some_and(|claim| {
        claim.verified.as_deref() == Some(&verified) && (mounted || !claim.deleting) && !again
    }) {
        return None;
    }
    let name = model.claim(&target.artifact);
    if claim.is_some_and(|claim| claim.deleting) {
        let message =
            format!("PersistentVolumeClaim {name} is being deleted: waiting for it to go");
        return Some(Decision::new(
            Step::WaitFetch,
            Reason::FetchPending,
            message,
        ));
    }
    if let Some(decision) = storage::free(model, target, snapshot) {
        return Some(no_node(model, target).unwrap_or(decision));
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
        let decision = moved(model, target, decision);
        return Some(storage::insufficient(
            model, target, snapshot, claim, decision,
        ));
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
        JobPhase::Succeeded { .. } if again && job.inputs != target.fetch_inputs => Decision::new(
            Step::RetryJob {
                name: job.name.clone(),
            },
            Reason::Downloading,
            "verifying the weights anew, as annotated",
        ),
        JobPhase::Succeeded { .. } => Decision::new(
            Step::MarkVerified,
            Reason::Verified,
            format!("{} fetched and verified", format_bytes(target.facts.bytes)),
        ),
        JobPhase::Active | JobPhase::Failed { .. } => {
            let message = format!("downloading {}", format_bytes(target.facts.bytes));
            let decision = waiting(job, Step::WaitFetch, Reason::Downloading, message)
                .every(PROGRESS_INTERVAL);
            storage::insufficient(model, target, snapshot, claim, decision)
        }
    })
}

/// The commit is pinned when the source is inspected. When it is gone by the time of the fetch (a force-push), only a
/// person can say which one is meant now.
fn moved(model: &ValidModel, target: &Target, decision: Decision) -> Decision {
    let (revision, commit) = (&model.source.revision, &target.facts.commit);
    if decision.reason != Reason::Reported("RevisionNotFound".to_owned()) || revision == commit {
        return decision;
    }
    let message = format!(
        "{revision} was commit {commit} when it was inspected, and that commit is gone from {}: set \
         source.huggingFace.revision to the commit or tag that is meant ({})",
        model.source.repo, decision.message
    );
    Decision {
        message,
        ..decision
    }
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
    if !job.ours {
        return again("it was made for a deleted KimiModel of this name");
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
        JobPhase::Active if edited && (job.failure.is_some() || job.blocked.is_some()) => {
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
            BlockedCause::Container | BlockedCause::Refused => Reason::PodBlocked,
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
    let message = match model.nodes.matching.first() {
        Some(largest) if largest.memory >= target.memory_request => return None,
        Some(largest) => format!(
            "the server requests {} of memory and the largest Node for {}, {}, has {} allocatable",
            format_bytes(target.memory_request),
            model.hardware_name,
            largest.name,
            format_bytes(largest.memory)
        ),
        None if model.pod.constrains_nodes() => {
            "no Node that spec.pod leaves is ready and schedulable".to_owned()
        }
        None => "no Node is ready and schedulable".to_owned(),
    };
    Some(Decision::refused(Reason::NoMatchingNode, message))
}

/// That no usable Node has the GPU, with the labels there are.
pub(super) fn no_gpu_node(model: &ValidModel) -> Option<String> {
    if !model.nodes.matching.is_empty() {
        return None;
    }
    let seen: Vec<&str> = model
        .nodes
        .products_seen
        .iter()
        .map(String::as_str)
        .collect();
    Some(format!(
        "no usable Node has {} in its label {} ({}); labels seen: {}",
        model.hardware_name,
        sizing::hardware::PRODUCT_LABEL,
        model.hardware.node_labels.join(" or "),
        if seen.is_empty() {
            "none".to_owned()
        } else {
            seen.join(", ")
        }
    ))
}
