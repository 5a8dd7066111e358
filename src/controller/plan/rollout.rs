//! The planner's checks from a verified artifact to an endpoint that leads to it alone: start beside the old server, or
//! in its place where only one fits, then flip, settle and drain. It must know nothing about Jobs and volumes.

use crate::controller::assess::Target;
use crate::controller::validate::ValidModel;
use crate::crd::LastSwitch;
use crate::snapshot::{BlockedCause, ServerPod, Snapshot, Workload};

use super::{Decision, ROOM_PATIENCE, Reason, Step};

/// Steps 8 and 9: the target's Deployment and its pod.
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
            .stalled(!pod.runs_again()),
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
    Decision::new(Step::WaitReady, Reason::StartFailed, message).stalled(!pod.runs_again())
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
pub(super) fn switch(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Decision> {
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
