//! The planner's checks of a target that is verified and cannot take over: when it is given up for the old server, and
//! what stands afterwards. It must know nothing about Jobs, and of volumes only whether the old weights are still there.

use jiff::{SignedDuration, Timestamp};
use spec::EngineUpdate;

use super::{Decision, ROOM_PATIENCE, Reason, Step, history};
use crate::controller::assess::Target;
use crate::controller::validate::ValidModel;
use crate::crd::HistoryEntry;
use crate::snapshot::{GivenUp, ServerPod, Snapshot, Workload};

/// Ends of a container after which the next try is not expected to go better: each may read hundreds of gigabytes.
const TRIES: u32 = 3;

/// The server to go back to: it is selected and its weights are still there. Without one nothing is given up, since
/// trying on under the kubelet's back-off costs nobody an answer.
pub(super) fn fallback<'a>(target: &Target, snapshot: &'a Snapshot) -> Option<&'a Workload> {
    snapshot.active().filter(|active| {
        active.id != target.workload && !active.deleting && snapshot.keeps_weights_of(active)
    })
}

/// Step 7: this very spec was rolled back before.
pub(super) fn rolled_back(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
) -> Option<Decision> {
    let old = fallback(target, snapshot)?;
    let service = snapshot.service.as_ref()?;
    let record = service.given_up.as_ref().filter(|record| {
        let same_engine = record.workload == target.workload;
        record.generation == snapshot.model.generation
            && record.artifact == target.artifact
            && record.inputs == target.inputs
            && (same_engine || model.engine_update == EngineUpdate::Manual)
    })?;
    let message = format!(
        "{} was rolled back ({}): {}; {} goes on. Editing the spec tries again",
        record.quant, record.reason, record.message, old.quant
    );
    let entry = service.history.iter().find(|entry| entry.time == record.at);
    let answering = live(old).filter(|pod| pod.ready);
    let answers_since = answering.filter_map(|pod| pod.ready_since).min();
    let step = match (entry, record.dark_since, answers_since) {
        // Only now is it known how long nothing answered.
        (Some(entry), Some(dark_since), Some(answers_since)) => Step::GiveUp {
            record: GivenUp {
                dark_since: None,
                ..record.clone()
            },
            entry: HistoryEntry {
                outage_seconds: seconds(dark_since, answers_since),
                ..entry.clone()
            },
        },
        _ => Step::RolledBack,
    };
    Some(Decision::new(step, Reason::RolledBack, message).stalled(true))
}

/// Gives the target up for `old`, if its failures or the clock say so.
pub(super) fn give_up(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    workload: &Workload,
    old: &Workload,
) -> Option<Decision> {
    let broken = live(workload).find_map(broken);
    let late = || {
        let mut passed = limits(model, target, workload, old).into_iter();
        passed
            .find(|limit| limit.at <= snapshot.now)
            .map(|limit| limit.why)
    };
    let why = broken.or_else(late)?;
    Some(decision(target, snapshot, old, why))
}

/// The next moment at which time alone gives the target up.
pub(super) fn next_limit(
    model: &ValidModel,
    target: &Target,
    workload: &Workload,
    old: &Workload,
) -> Option<Timestamp> {
    let limits = limits(model, target, workload, old).into_iter();
    limits.map(|limit| limit.at).min()
}

/// Gives the target up where stopping `old` for it is expected to cost more than `rollout.maxOutageSeconds`: the new
/// weights are taken to load as fast as the old ones did.
pub(super) fn outage_refused(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    old: &Workload,
) -> Option<Decision> {
    let max = model.max_outage?;
    let facts = snapshot
        .claim(&old.artifact)
        .and_then(|claim| claim.facts.as_ref());
    // Of a volume of the user's that the spec names no more nothing is known: then both are taken to be as large.
    let old_bytes = facts.map_or(target.facts.bytes, |facts| facts.bytes);
    let loads = old
        .pods
        .iter()
        .filter_map(|pod| Some((pod.started?, pod.ready_since?)));
    let took = loads.map(|(started, ready)| seconds(started, ready)).max();
    let expected = took.map_or(0, |took| {
        let scaled =
            i128::from(took) * i128::from(target.facts.bytes) / i128::from(old_bytes.max(1));
        i64::try_from(scaled).unwrap_or(i64::MAX)
    });
    if max > 0 && expected <= i64::from(max) {
        return None;
    }
    let why = Why {
        reason: OUTAGE_TOO_LONG,
        message: format!(
            "{} finds no room beside {}, and stopping that first is expected to leave the endpoint without a server for \
             {expected} s; rollout.maxOutageSeconds is {max}",
            target.facts.quant, old.quant
        ),
    };
    Some(decision(target, snapshot, old, why.into()))
}

const OUTAGE_TOO_LONG: &str = "OutageTooLong";
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

struct Why<Word> {
    reason: Word,
    message: String,
}

impl From<Why<&'static str>> for Why<String> {
    fn from(why: Why<&'static str>) -> Self {
        Self {
            reason: why.reason.to_owned(),
            message: why.message,
        }
    }
}

/// A moment from which on the target is given up.
struct Limit {
    at: Timestamp,
    why: Why<String>,
}

fn live(workload: &Workload) -> impl Iterator<Item = &ServerPod> {
    workload.pods.iter().filter(|pod| !pod.terminating)
}

fn broken(pod: &ServerPod) -> Option<Why<String>> {
    let ends = pod.ends();
    if ends < TRIES && !pod.permanent {
        return None;
    }
    Some(match &pod.failure {
        Some(failure) => Why {
            reason: failure.reason.clone(),
            message: format!("{} (ended {} times)", failure.message, ends.max(1)),
        },
        None => Why {
            reason: Reason::StartFailed.as_str().to_owned(),
            message: format!("its container ended {ends} times without a report"),
        },
    })
}

fn limits(model: &ValidModel, target: &Target, workload: &Workload, old: &Workload) -> Vec<Limit> {
    let after = |since: Timestamp, wait: SignedDuration, why: Why<&'static str>| {
        let at = since.checked_add(wait).unwrap_or(Timestamp::MAX);
        Limit {
            at,
            why: why.into(),
        }
    };
    let stopped = old.replicas == 0;
    let mut limits = Vec::new();
    if let (true, Some(since), Some(max)) = (stopped, old.dark_at, model.max_outage) {
        let message = format!(
            "{} was stopped to make room and nothing has answered for rollout.maxOutageSeconds, {max} s",
            old.quant
        );
        let why = Why {
            reason: OUTAGE_TOO_LONG,
            message,
        };
        limits.push(after(since, SignedDuration::from_secs(max.into()), why));
    }
    let refused = || workload.refused.as_ref().map(|refused| refused.since);
    if let Some(since) = live(workload)
        .filter_map(|pod| pod.scheduled)
        .min()
        .or_else(refused)
    {
        let deadline = target.deadline_seconds;
        let message = format!(
            "it did not pass its self-test within {deadline} s; rollout.progressDeadlineSeconds raises the limit"
        );
        let why = Why {
            reason: DEADLINE_EXCEEDED,
            message,
        };
        limits.push(after(
            since,
            SignedDuration::from_secs(deadline.into()),
            why,
        ));
    }
    // The old server is gone and its room is somebody else's.
    let waits = live(workload)
        .find_map(|pod| pod.blocked.as_ref())
        .or(workload.refused.as_ref());
    if let (true, Some(since), Some(blocked)) = (stopped, old.emptied_at, waits) {
        let why = Why {
            reason: "Unschedulable",
            message: format!("no room even without {}: {}", old.quant, blocked.message),
        };
        limits.push(after(since, ROOM_PATIENCE, why));
    }
    limits
}

fn decision(target: &Target, snapshot: &Snapshot, old: &Workload, why: Why<String>) -> Decision {
    let Why { reason, message } = why;
    let quant = &target.facts.quant;
    let said = format!(
        "{quant} is given up ({reason}): {message}; {} goes on",
        old.quant
    );
    let entry = history::rolled_back(target, snapshot, old, reason.clone());
    let record = GivenUp {
        at: snapshot.now,
        generation: snapshot.model.generation,
        artifact: target.artifact.clone(),
        workload: target.workload.clone(),
        inputs: target.inputs.clone(),
        quant: quant.clone(),
        reason,
        message,
        dark_since: old.dark_since(),
    };
    Decision::new(Step::GiveUp { record, entry }, Reason::RolledBack, said)
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs().max(0)
}
