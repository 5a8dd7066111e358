//! What a pod says about itself: why it does not run, how it ended, what it reported. Termination messages come from
//! our own worker but through a file that anything in the pod could write: they are bounded and parsed, never trusted.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, Event, Pod, PodCondition,
};
use kube::ResourceExt;
use sizing::facts::Failure;
use sizing::{Facts, InspectReport};

use crate::snapshot::{Blocked, BlockedCause, ServerPod};

/// Exit code of a worker that would fail again with the same words.
const PERMANENT: i32 = 2;
/// Kubernetes words become part of a condition's message.
const MAX_WORDS: usize = 1024;

/// Waiting reasons of a container that only a change of image or Secret or a retry can end.
const STUCK: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// True if the object with this UID controls the pod.
#[must_use]
pub fn owned_by(pod: &Pod, uid: &str) -> bool {
    pod.owner_references().iter().any(|owner| owner.uid == uid)
}

/// UID and address of a pod whose container runs.
#[must_use]
pub fn running_at(pod: &std::sync::Arc<Pod>) -> Option<(String, String)> {
    let status = pod.status.as_ref()?;
    let running =
        status.phase.as_deref() == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    running
        .then(|| Some((pod.uid()?, status.pod_ip.clone()?)))
        .flatten()
}

/// Why this pod failed; `None` if it did not.
#[must_use]
pub fn failure(pod: &Pod) -> Option<Failure> {
    let ended = states(pod)
        .filter_map(|(now, _)| now?.terminated.as_ref())
        .find(|t| t.exit_code != 0);
    if let Some(terminated) = ended {
        return Some(reported(terminated));
    }
    let status = pod.status.as_ref()?;
    if status.phase.as_deref() != Some("Failed") {
        return None;
    }
    // Evicted, Preempted, NodeLost: the kubelet ended the pod and its containers say nothing.
    let reason = status.reason.as_deref().unwrap_or("PodFailed");
    let message = status
        .message
        .as_deref()
        .unwrap_or("the pod failed without a word");
    Some(words(reason, message))
}

/// The failure of a Job whose pods are gone, in the Job controller's words.
#[must_use]
pub fn job_failure(job: &Job) -> Option<Failure> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions
        .iter()
        .find(|c| c.type_ == "Failed" && c.status == "True")?;
    Some(words(
        failed.reason.as_deref().unwrap_or("JobFailed"),
        failed.message.as_deref().unwrap_or_default(),
    ))
}

/// Facts that a successful inspect pod left behind.
#[must_use]
pub fn facts(pod: &Pod) -> Option<Facts> {
    let terminated = states(pod)
        .filter_map(|(now, _)| now?.terminated.as_ref())
        .find(|t| t.exit_code == 0)?;
    match InspectReport::parse(terminated.message.as_deref()?) {
        Ok(InspectReport::Facts(facts)) => Some(*facts),
        Ok(InspectReport::Error(_)) => None,
        Err(error) => {
            tracing::warn!(pod = pod.name_any(), %error, "an inspect pod left a report that is none");
            None
        }
    }
}

/// True if a container ended with the exit code that says "retrying cannot help".
#[must_use]
pub fn ended_permanently(pod: &Pod) -> bool {
    states(pod).any(|(now, _)| {
        now.and_then(|s| s.terminated.as_ref())
            .is_some_and(|t| t.exit_code == PERMANENT)
    })
}

/// Why the pod does not run yet; `None` if it runs, ended, or is just starting.
#[must_use]
pub fn blocked(pod: &Pod, now: Timestamp) -> Option<Blocked> {
    let scheduled = condition(pod, "PodScheduled");
    if let Some(refused) =
        scheduled.filter(|c| c.status == "False" && c.reason.as_deref() == Some("Unschedulable"))
    {
        return Some(Blocked {
            cause: BlockedCause::Unschedulable,
            since: transition(refused, now),
            message: cut(refused
                .message
                .as_deref()
                .unwrap_or("no Node takes the pod")),
        });
    }
    let waiting = states(pod)
        .filter_map(|(now, _)| now?.waiting.as_ref())
        .find(|waiting| {
            waiting
                .reason
                .as_deref()
                .is_some_and(|reason| STUCK.contains(&reason))
        })?;
    let (reason, message) = (
        waiting.reason.as_deref().unwrap_or_default(),
        waiting.message.as_deref(),
    );
    Some(Blocked {
        cause: BlockedCause::Container,
        // The kubelet gives no time; the pod was scheduled just before it first tried.
        since: scheduled.map_or(now, |c| transition(c, now)),
        message: cut(&stuck_words(reason, message.unwrap_or_default())),
    })
}

/// The newest words of a provisioner about the claim with this UID.
#[must_use]
pub fn provisioner_said(events: &[Arc<Event>], claim: &Option<String>) -> Option<String> {
    let about = |event: &&Arc<Event>| claim.is_some() && event.involved_object.uid == *claim;
    let newest = events
        .iter()
        .filter(about)
        .max_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0))?;
    Some(cut(newest.message.as_deref().unwrap_or_default()))
}

/// Why the API server makes no pod for this Deployment; `None` if it does.
#[must_use]
pub fn refused(deployment: &Deployment, now: Timestamp) -> Option<Blocked> {
    let conditions = deployment.status.as_ref()?.conditions.as_ref()?;
    let failed = conditions
        .iter()
        .find(|c| c.type_ == "ReplicaFailure" && c.status == "True")?;
    Some(Blocked {
        cause: BlockedCause::Refused,
        since: failed
            .last_transition_time
            .as_ref()
            .map_or(now, |time| time.0),
        message: cut(failed.message.as_deref().unwrap_or("no pod can be made")),
    })
}

/// A failing pull alternates between two reasons and two texts of the same content; one text for both keeps the status
/// from being written at every turn.
fn stuck_words(reason: &str, message: &str) -> String {
    if !["ErrImagePull", "ImagePullBackOff"].contains(&reason) {
        return format!("{reason}: {message}");
    }
    let cause = message
        .split_once("ErrImagePull: ")
        .map_or(message, |(_, cause)| cause);
    format!("the image cannot be pulled: {cause}")
}

/// A pod of a server Deployment.
#[must_use]
pub fn server(pod: &Pod, now: Timestamp) -> ServerPod {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True");
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    // A container in a crash loop waits: how it ended is in its last state.
    let last = states(pod)
        .filter_map(|(now, last)| {
            now.and_then(|s| s.terminated.as_ref())
                .or(last?.terminated.as_ref())
        })
        .find(|terminated| terminated.exit_code != 0);
    let running = states(pod).find_map(|(now, _)| now?.running.as_ref()?.started_at.as_ref());
    let ended = states(pod)
        .flat_map(|(now, last)| [now, last])
        .filter_map(|state| state?.terminated.as_ref()?.finished_at.as_ref())
        .map(|time| time.0)
        .max();
    let permanent = states(pod)
        .flat_map(|(now, last)| [now, last])
        .any(|state| {
            state
                .and_then(|s| s.terminated.as_ref())
                .is_some_and(|t| t.exit_code == PERMANENT)
        });
    ServerPod {
        name: pod.name_any(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ready: ready.is_some(),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        blocked: blocked(pod, now),
        scheduled: condition(pod, "PodScheduled")
            .filter(|c| c.status == "True")
            .map(|c| transition(c, now)),
        permanent,
        failure: last.map(reported).or_else(|| failure(pod)),
        restarts: statuses
            .iter()
            .map(|s| u32::try_from(s.restart_count).unwrap_or(0))
            .sum(),
        started: running.map(|time| time.0),
        ended,
        ready_since: ready.and_then(|c| Some(c.last_transition_time.as_ref()?.0)),
        usage: None,
    }
}

/// Current and last state of every container, init containers first.
fn states(pod: &Pod) -> impl Iterator<Item = (Option<&ContainerState>, Option<&ContainerState>)> {
    let status = pod.status.as_ref();
    let init = status
        .and_then(|status| status.init_container_statuses.as_deref())
        .unwrap_or_default();
    let main = status
        .and_then(|status| status.container_statuses.as_deref())
        .unwrap_or_default();
    init.iter()
        .chain(main)
        .map(|status| (status.state.as_ref(), status.last_state.as_ref()))
}

/// The worker's own words if it left some, else the kubelet's.
fn reported(terminated: &ContainerStateTerminated) -> Failure {
    let message = terminated.message.as_deref().unwrap_or_default();
    if let Ok(InspectReport::Error(failure)) = InspectReport::parse(message.trim()) {
        return words(&failure.reason, &failure.message);
    }
    let code = terminated.exit_code;
    match terminated.reason.as_deref() {
        Some("OOMKilled") => words(
            "OutOfMemory",
            "the container was killed at its memory limit; raise spec.memory or choose a smaller quant",
        ),
        Some("Error") | None => words(
            "WorkerFailed",
            &format!("the container ended with exit code {code}: {message}"),
        ),
        Some(reason) => words(
            reason,
            &format!("the container ended with exit code {code}: {message}"),
        ),
    }
}

/// A reason must be one word of letters and digits, a message must not be endless.
fn words(reason: &str, message: &str) -> Failure {
    let reason: String = reason
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(64)
        .collect();
    let starts_well = reason
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic());
    Failure {
        reason: if starts_well {
            reason
        } else {
            "Failed".to_owned()
        },
        message: cut(message),
    }
}

fn cut(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || *c == '\n')
        .take(MAX_WORDS)
        .collect()
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status
        .as_ref()?
        .conditions
        .as_ref()?
        .iter()
        .find(|condition| condition.type_ == kind)
}

fn transition(condition: &PodCondition, now: Timestamp) -> Timestamp {
    condition
        .last_transition_time
        .as_ref()
        .map_or(now, |time| time.0)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn killed_at(at: &str) -> Value {
        json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": at}})
    }

    fn container(name: &str, state: Value, last: Value) -> Value {
        json!({"name": name, "image": "x", "imageID": "x", "ready": false, "restartCount": 1,
               "state": state, "lastState": last})
    }

    fn observed(containers: &[Value]) -> ServerPod {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "reader"},
            "status": {"phase": "Running", "containerStatuses": containers}
        }))
        .unwrap();
        server(&pod, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_server_runs_again_once_it_was_started_after_its_end() {
        let running = |at: &str| json!({"running": {"startedAt": at}});
        let (early, killed, late) = (
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:01:00Z",
            "2026-01-01T00:02:00Z",
        );
        let again = observed(&[container("server", running(late), killed_at(killed))]);
        assert!(again.runs_again());
        assert_eq!(again.failure.unwrap().reason, "OutOfMemory");
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let looping = container("server", waiting, killed_at(killed));
        assert!(!observed(std::slice::from_ref(&looping)).runs_again());
        let beside = container("proxy", running(early), json!({}));
        assert!(!observed(&[looping, beside]).runs_again());
    }
}
