//! The planner's checks from a verified artifact to an endpoint that leads to it alone: start beside the old server, or
//! in its place where only one fits, then flip, settle and drain. It must know nothing about Jobs and volumes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::controller::assess::Target;
use crate::controller::validate::ValidModel;
use crate::names;
use crate::snapshot::{Blocked, BlockedCause, ServerPod, Snapshot, Workload};

use super::{Decision, ROOM_PATIENCE, Reason, Step, history, rollback};

/// A pod is ready for at least two seconds before the endpoint moves to it; its Node writes the moment down in whole
/// seconds, cut off.
const HEARING: SignedDuration = SignedDuration::from_secs(3);

/// Steps 9 and 10: the target's Deployment and its pod.
pub(super) fn start(
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
    if model.replicas == 0 || takes_over(model, snapshot, workload) {
        return None;
    }
    let Some(old) = rollback::fallback(target, snapshot) else {
        return Some(not_ready(model, target, snapshot, workload, None));
    };
    let given_up = rollback::give_up(model, target, snapshot, workload, old);
    Some(given_up.unwrap_or_else(|| {
        let decision = not_ready(model, target, snapshot, workload, Some(old));
        match rollback::next_limit(model, target, workload, old) {
            Some(at) => decision.by(at, snapshot.now),
            None => decision,
        }
    }))
}

/// Whether the pods that are ready are enough: all that were asked for, or some where the others wait for the room that
/// the old server leaves, or where this one is selected already.
fn takes_over(model: &ValidModel, snapshot: &Snapshot, workload: &Workload) -> bool {
    let ready = workload.ready_pods();
    let all = usize::try_from(model.replicas).is_ok_and(|wanted| ready >= wanted);
    let selected = snapshot
        .active()
        .is_some_and(|active| active.id == workload.id);
    let waits = workload.refused.is_some() || workload.pods.iter().any(|pod| pod.blocked.is_some());
    ready > 0 && (all || selected || waits)
}

/// What the target's pod waits for, and what is done about it.
fn not_ready(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    workload: &Workload,
    old: Option<&Workload>,
) -> Decision {
    let quant = &target.facts.quant;
    let pods = || workload.pods.iter().filter(|pod| !pod.terminating);
    let blocked = pods().find_map(|pod| pod.blocked.as_ref()).or(workload
        .refused
        .as_ref()
        .filter(|_| pods().next().is_none()));
    if let Some(blocked) = blocked {
        return if wants_room(blocked) {
            no_room(model, target, snapshot, blocked, old)
        } else {
            Decision::new(Step::WaitReady, Reason::PodBlocked, blocked.message.clone())
                .stalled(true)
        };
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
        return Decision::new(
            Step::WaitReady,
            Reason::Reported(failure.reason.clone()),
            message,
        )
        .stalled(!pod.runs_again());
    }
    if let Some(pod) = pods().find(|pod| pod.restarts > 0) {
        return crashed(pod);
    }
    let message = format!("{quant} loads and tests itself");
    Decision::new(Step::WaitReady, Reason::Loading, message)
}

/// Whether what blocks a pod is a lack of room, which stopping another server may end.
fn wants_room(blocked: &Blocked) -> bool {
    match blocked.cause {
        BlockedCause::Unschedulable => true,
        BlockedCause::Refused => blocked.message.contains("exceeded quota"),
        BlockedCause::Container => false,
    }
}

/// The target's pod finds no room: it waits for some, or the old server is stopped for it.
fn no_room(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    blocked: &Blocked,
    old: Option<&Workload>,
) -> Decision {
    let quant = &target.facts.quant;
    let waited = snapshot.now.duration_since(blocked.since);
    match old {
        Some(old) if old.replicas == 0 => {
            let message = format!(
                "the server with {} ends its streams to make room",
                old.quant
            );
            Decision::new(Step::WaitReady, Reason::MakingRoom, message)
        }
        Some(old) if frees_room(model, target, blocked, old) => {
            let message = format!(
                "no room for {quant} beside {}: {}",
                old.quant, blocked.message
            );
            let patience = if holds_the_gpu(blocked, old) {
                SignedDuration::ZERO
            } else {
                ROOM_PATIENCE
            };
            if waited >= patience {
                rollback::outage_refused(model, target, snapshot, old)
                    .unwrap_or_else(|| Decision::new(Step::StopOld, Reason::MakingRoom, message))
            } else {
                Decision::new(Step::WaitReady, Reason::Unschedulable, message)
                    .after(ROOM_PATIENCE - waited)
            }
        }
        _ => Decision::new(
            Step::WaitReady,
            Reason::Unschedulable,
            blocked.message.clone(),
        )
        .stalled(waited >= ROOM_PATIENCE)
        .after(ROOM_PATIENCE),
    }
}

fn crashed(pod: &ServerPod) -> Decision {
    let message = format!(
        "pod {} ended {} times without a report; see its logs",
        pod.name, pod.restarts
    );
    Decision::new(Step::WaitReady, Reason::StartFailed, message).stalled(!pod.runs_again())
}

/// Whether the scheduler names what `old` holds. A GPU is held or free: waiting for it to shrink is no use.
fn holds_the_gpu(blocked: &Blocked, old: &Workload) -> bool {
    old.gpu && lacks(blocked, names::GPU_RESOURCE)
}

fn lacks(blocked: &Blocked, resource: &str) -> bool {
    blocked
        .message
        .contains(&format!("Insufficient {resource}"))
}

/// Whether stopping `old` can make room. Otherwise an outage would buy nothing: it frees no GPU that it does not hold. It
/// does where
///
/// - a quota counts both servers;
/// - one of its pods is on a Node where the target's pod could be;
/// - it holds the very volume that the target's pod needs: one Node mounts it, so a pod beside the old one shares it,
///   and a pod that must go to another Node has to wait until the old one has let go.
fn frees_room(model: &ValidModel, target: &Target, blocked: &Blocked, old: &Workload) -> bool {
    let could_take = |name: &str| {
        let mut nodes = model.nodes.matching.iter();
        nodes.any(|node| node.name == name && node.memory >= target.memory_request)
    };
    let others_gpu = !old.gpu
        && lacks(blocked, names::GPU_RESOURCE)
        && !lacks(blocked, "memory")
        && !lacks(blocked, "cpu");
    if others_gpu {
        return false;
    }
    blocked.cause == BlockedCause::Refused
        || old.artifact == target.artifact
        || old
            .pods
            .iter()
            .filter_map(|pod| pod.node.as_deref())
            .any(could_take)
}

/// When the last of the endpoints' keepers has heard that the target is ready. Kubernetes tells of a pod's readiness and
/// of a new selector one by one: a selector that is heard of first leads nowhere for a moment. `None` where nothing would
/// be lost by that, since nothing answers, and where the clock of the pod's Node says nothing, being ahead of ours.
fn heard_of(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Timestamp> {
    snapshot.service.as_ref()?.selected.as_ref()?;
    let dark = snapshot.active().is_some_and(|old| old.ready_pods() == 0);
    if dark || model.replicas == 0 {
        return None;
    }
    let pods = snapshot.workload(&target.workload)?.pods.iter();
    let ready = pods.filter(|pod| pod.ready && !pod.terminating);
    let since = ready.filter_map(|pod| pod.ready_since).min()?;
    let at = since.checked_add(HEARING).ok()?;
    (snapshot.now < at && since.duration_since(snapshot.now) < HEARING).then_some(at)
}

/// Steps 11 to 13: the endpoint, once the target is ready.
pub(super) fn switch(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    let to = &target.facts.quant;
    let service = snapshot.service.as_ref();
    if service.and_then(|service| service.selected.as_ref()) != Some(&target.workload) {
        if let Some(at) = heard_of(model, target, snapshot) {
            let message =
                format!("{to} passed its self-test: the endpoint moves to it in a moment");
            let left = Duration::try_from(at.duration_since(snapshot.now)).unwrap_or_default();
            return Some(Decision::new(Step::WaitReady, Reason::Switching, message).every(left));
        }
        let entry = history::switched(target, snapshot);
        let message = format!("{to} passed its self-test: the endpoint moves to it");
        return Some(Decision::new(
            Step::Flip { entry },
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

pub(super) fn serving(model: &ValidModel, target: &Target) -> Decision {
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
