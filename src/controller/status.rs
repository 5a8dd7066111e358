//! What was decided and applied → `.status`. Pure: the previous status gives only transition times and figures whose
//! objects are gone, and is compared against, so that an unchanged status is not written. No decision reads it.

pub mod events;
mod figures;
mod measured;
mod volumes;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sizing::{Facts, Fits};
use spec::{AUTO_QUANT, format_bytes};

use super::apply;
use super::assess::Assessment;
use super::build::{Applied, Resources};
use super::plan::{Decision, Reason, Step, storage};
use super::validate::Execution;
use crate::crd::{HistoryEntry, KimiModelStatus, PlanStatus};
use crate::names;
use crate::snapshot::{Snapshot, Workload};

/// The API conventions' limits, which the CRD's schema enforces too.
const MAX_MESSAGE: usize = 4096;
const MAX_PROGRESS: usize = 128;

/// Condition types in the order they are shown. Others in the list belong to somebody else.
pub(super) const TYPES: [&str; 9] = [
    "Ready",
    "Planned",
    "ArtifactReady",
    "Accelerated",
    "EngineOutdated",
    "Serving",
    "MemoryFits",
    "Reconciling",
    "Stalled",
];

/// Everything a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    pub snapshot: &'a Snapshot,
    pub assessment: &'a Assessment,
    pub decision: &'a Decision,
    /// The step's objects, written; or why one was not.
    pub applied: Result<&'a Resources<Applied>, &'a apply::Error>,
    /// For transition times and figures whose objects are gone.
    pub previous: Option<&'a KimiModelStatus>,
}

/// The reason where a file of the weights is not what the server loaded.
const WEIGHTS_CHANGED: &str = "WeightsChanged";

/// One condition before it has a time: status, reason, message.
struct Word {
    status: &'static str,
    reason: String,
    message: String,
}

fn word(status: &'static str, reason: &str, message: &str) -> Word {
    Word {
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// The status to show.
#[must_use]
pub fn status(inputs: Inputs<'_>) -> KimiModelStatus {
    let Inputs {
        snapshot,
        assessment,
        decision,
        applied: _,
        previous,
    } = inputs;
    let generation = snapshot.model.generation;
    let active = snapshot.active();
    let words = [
        ready(inputs),
        planned(assessment, decision),
        artifact_ready(inputs),
        accelerated(assessment),
        engine_outdated(assessment),
        serving(snapshot, decision),
        measured::memory_fits(inputs),
        reconciling(inputs),
        stalled(inputs),
    ];
    let conditions = TYPES
        .into_iter()
        .zip(words)
        .map(|(kind, word)| condition(kind, word, generation, previous, snapshot.now))
        .collect();
    let artifact = figures::artifact(inputs);
    let timings = figures::timings(inputs, artifact.as_ref());
    KimiModelStatus {
        observed_generation: Some(generation),
        conditions,
        progress: Some(cut(
            &figures::progress(inputs, artifact.as_ref()),
            MAX_PROGRESS,
        )),
        plan: assessment.plan.as_ref().map(PlanStatus::from),
        measured: measured::measured(inputs, timings.as_ref()),
        timings,
        artifact,
        volumes: volumes::volumes(inputs),
        active_quant: answering(snapshot),
        target_quant: target_quant(inputs),
        endpoint: snapshot.service.as_ref().map(|_| endpoint(inputs)),
        last_switch: snapshot
            .service
            .as_ref()
            .and_then(|service| service.last_switch.clone())
            .or_else(|| previous.and_then(|previous| previous.last_switch.clone())),
        history: history(snapshot, previous),
        replicas: Some(i32::try_from(active.map_or(0, Workload::ready_pods)).unwrap_or(i32::MAX)),
        selector: Some(format!(
            "{}={},{}={}",
            names::LABEL_INSTANCE,
            snapshot.model.name,
            names::LABEL_COMPONENT,
            names::Component::Server.as_str()
        )),
    }
}

/// True if writing `new` over `old` would change something of ours. Conditions of others in `old` do not count: they
/// stay, and comparing them would write for ever.
#[must_use]
pub fn differs(old: Option<&KimiModelStatus>, new: &KimiModelStatus) -> bool {
    let Some(old) = old else { return true };
    let mut old = old.clone();
    old.conditions
        .retain(|condition| TYPES.contains(&condition.type_.as_str()));
    let position = |condition: &Condition| TYPES.iter().position(|kind| *kind == condition.type_);
    old.conditions.sort_by_key(position);
    old != *new
}

/// True if somebody waits for what `new` says: a new object, an edit, readiness, or that a person must act. All else is
/// progress, which bears a second's delay.
#[must_use]
pub fn urgent(old: Option<&KimiModelStatus>, new: &KimiModelStatus) -> bool {
    old.is_none_or(|old| {
        let changed = |kind| {
            let [before, now] =
                [old, new].map(|status| events::condition(kind, status).map(|c| &c.status));
            before != now
        };
        old.observed_generation != new.observed_generation || changed("Ready") || changed("Stalled")
    })
}

/// The history on the Service; where that was made anew, what was known before.
fn history(snapshot: &Snapshot, previous: Option<&KimiModelStatus>) -> Vec<HistoryEntry> {
    let written = snapshot
        .service
        .as_ref()
        .map(|service| service.history.clone());
    match (written, previous) {
        (Some(written), _) if !written.is_empty() => written,
        (_, Some(previous)) => previous.history.clone(),
        (_, None) => Vec::new(),
    }
}

/// Ready pods stand behind the Service, of the target or of what it replaces.
fn endpoints(snapshot: &Snapshot) -> usize {
    let selected = snapshot
        .active()
        .map_or(0, |workload| workload.ready_endpoints);
    selected
        + snapshot
            .service
            .as_ref()
            .map_or(0, |service| service.foreign_endpoints)
}

/// The quant that answers now. Just after a flip the endpoints still lead to the one before.
fn answering(snapshot: &Snapshot) -> Option<String> {
    let active = snapshot.active();
    if let Some(active) = active.filter(|active| active.ready_endpoints > 0) {
        return Some(active.quant.clone());
    }
    let service = snapshot
        .service
        .as_ref()
        .filter(|service| service.foreign_endpoints > 0)?;
    service
        .last_switch
        .as_ref()
        .and_then(|switch| switch.from.clone())
}

fn ready(inputs: Inputs<'_>) -> Word {
    let Inputs {
        snapshot, decision, ..
    } = inputs;
    if endpoints(snapshot) > 0 {
        if let Some(message) = measured::weights_changed(snapshot) {
            return word("False", WEIGHTS_CHANGED, &message);
        }
        let quant = answering(snapshot).unwrap_or_else(|| "the previous quant".to_owned());
        return match decision.step {
            Step::Serving => word("True", "Serving", &decision.message),
            Step::Deleting => word("False", "Deleting", &decision.message),
            _ => {
                let reason = match decision.step {
                    Step::GiveUp { .. } | Step::RolledBack => decision.reason.as_str(),
                    _ => "Serving",
                };
                let message = format!("{quant} answers; {}", trouble(inputs));
                word("True", reason, &message)
            }
        };
    }
    if let Some((reason, message)) = refused_write(inputs) {
        return word("False", &reason, &message);
    }
    let reason = decision.reason.as_str();
    let stopped = matches!(
        decision.step,
        Step::Deleting | Step::Refused | Step::Suspended | Step::Serving
    );
    // A first download or load is neither success nor failure; losing an endpoint that answered is a failure.
    let answered_before = snapshot.active().is_some();
    let status = if stopped || decision.stalled || answered_before {
        "False"
    } else {
        "Unknown"
    };
    word(status, reason, &decision.message)
}

/// What goes on besides serving: a refused write comes before the decision it belongs to.
fn trouble(inputs: Inputs<'_>) -> String {
    refused_write(inputs).map_or_else(|| inputs.decision.message.clone(), |(_, message)| message)
}

fn planned(assessment: &Assessment, decision: &Decision) -> Word {
    if let Err(refusal) = &assessment.model {
        return word("False", refusal.reason.as_str(), &refusal.message);
    }
    match &assessment.plan {
        Some(plan) => {
            let status = if plan.fits == Fits::No {
                "False"
            } else {
                "True"
            };
            word(status, &format!("{:?}", plan.cause), &plan.reason)
        }
        None if decision.stalled => word("False", decision.reason.as_str(), &decision.message),
        None => word("Unknown", decision.reason.as_str(), &decision.message),
    }
}

fn artifact_ready(inputs: Inputs<'_>) -> Word {
    let Inputs {
        snapshot,
        assessment,
        decision,
        ..
    } = inputs;
    let Some(target) = &assessment.target else {
        let status = if decision.stalled { "False" } else { "Unknown" };
        return word(status, decision.reason.as_str(), &decision.message);
    };
    if is_verified(snapshot, &target.artifact, &target.facts) {
        let Facts {
            commit,
            shards,
            bytes,
            ..
        } = &target.facts;
        let message = format!(
            "{} in {shards} shards of commit {commit}, every SHA-256 as published",
            format_bytes(*bytes)
        );
        return word("True", "Verified", &message);
    }
    let said = snapshot
        .fetch_job(&target.artifact)
        .and_then(|job| job.progress.as_ref());
    let message = match said.map(|progress| progress.message.as_str()) {
        Some(said) if !said.is_empty() => format!("{}; {said}", decision.message),
        _ => decision.message.clone(),
    };
    word("False", decision.reason.as_str(), &message)
}

fn accelerated(assessment: &Assessment) -> Word {
    let Ok(model) = &assessment.model else {
        return word("Unknown", "InvalidSpec", "the spec is not valid");
    };
    let hardware = model.hardware_name;
    match model.execution {
        Execution::Cpu => word("False", "NotRequested", "spec.hardware is CPU"),
        Execution::CpuFallback => word(
            "False",
            "CpuFallback",
            &format!(
                "planned for {hardware} and served by the CPU: the engine has no GPU path yet"
            ),
        ),
        Execution::Denied => word(
            "False",
            "AccelerationUnavailable",
            &format!("the engine has no path for {hardware} yet and serving.cpuFallback is Deny"),
        ),
    }
}

fn engine_outdated(assessment: &Assessment) -> Word {
    match &assessment.target {
        Some(target) if target.template.is_none() => word(
            "True",
            "EngineUpdateManual",
            &format!(
                "workload {} was made by another version of the operator or of the worker image; rollout.engineUpdate: \
                 Automatic replaces it now, and so does the next edit that concerns the server",
                target.workload
            ),
        ),
        _ => word("False", "Current", "no server of another version is kept"),
    }
}

fn serving(snapshot: &Snapshot, decision: &Decision) -> Word {
    match answering(snapshot) {
        Some(quant) => word(
            "True",
            "Serving",
            &format!("{} ready endpoint(s) of {quant}", endpoints(snapshot)),
        ),
        None => word("False", decision.reason.as_str(), &decision.message),
    }
}

fn reconciling(inputs: Inputs<'_>) -> Word {
    let Inputs { decision, .. } = inputs;
    let settled = matches!(
        decision.step,
        Step::Refused | Step::Suspended | Step::Serving
    );
    if stalled(inputs).status == "True" {
        return word(
            "False",
            "Stalled",
            "condition Stalled says what is in the way",
        );
    }
    if settled {
        return word("False", "Settled", "nothing is under way");
    }
    word("True", decision.reason.as_str(), &decision.message)
}

fn stalled(inputs: Inputs<'_>) -> Word {
    if let Some((reason, message)) = refused_write(inputs) {
        return word("True", &reason, &message);
    }
    let Inputs { decision, .. } = inputs;
    if decision.stalled {
        return word("True", decision.reason.as_str(), &decision.message);
    }
    // Not while files are being mended.
    if matches!(decision.step, Step::Serving)
        && let Some(message) = measured::weights_changed(inputs.snapshot)
    {
        return word("True", WEIGHTS_CHANGED, &message);
    }
    word("False", "Healthy", "nothing needs a person")
}

/// A write that the API server refused in a way that waiting does not cure: a quota, a policy, a name that is taken.
fn refused_write(inputs: Inputs<'_>) -> Option<(String, String)> {
    let error = inputs.applied.err()?;
    let reason = error.refusal()?;
    let no_room = reason == Reason::InsufficientStorage.as_str();
    let hint = match (&inputs.assessment.model, &inputs.assessment.target) {
        (Ok(model), Some(target)) if no_room => storage::way_out(model, target, inputs.snapshot),
        _ => String::new(),
    };
    Some((reason, format!("{error}{hint}")))
}

fn condition(
    kind: &str,
    word: Word,
    generation: i64,
    previous: Option<&KimiModelStatus>,
    now: Timestamp,
) -> Condition {
    let before =
        previous.and_then(|previous| previous.conditions.iter().find(|old| old.type_ == kind));
    let since = before.filter(|old| old.status == word.status).map_or_else(
        || Time(whole_seconds(now)),
        |old| old.last_transition_time.clone(),
    );
    Condition {
        type_: kind.to_owned(),
        status: word.status.to_owned(),
        reason: word.reason,
        message: cut(&word.message, MAX_MESSAGE),
        observed_generation: Some(generation),
        last_transition_time: since,
    }
}

/// A `Time` has whole seconds on the wire: anything finer would differ from what is read back.
fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn cut(text: &str, limit: usize) -> String {
    text.chars().take(limit).collect()
}

fn is_verified(snapshot: &Snapshot, artifact: &str, facts: &Facts) -> bool {
    let wanted = names::verified_value(facts);
    snapshot
        .claim(artifact)
        .is_some_and(|claim| claim.verified.as_deref() == Some(wanted.as_str()))
}

fn target_quant(inputs: Inputs<'_>) -> Option<String> {
    match &inputs.assessment.model {
        Ok(model) => Some(model.source.quant.clone()),
        Err(_) => {
            let quant = inputs.snapshot.spec.quant.clone();
            quant.filter(|quant| quant != AUTO_QUANT)
        }
    }
}

fn endpoint(inputs: Inputs<'_>) -> String {
    let meta = &inputs.snapshot.model;
    format!(
        "http://{}.{}.svc:{}/v1",
        meta.name, meta.namespace, inputs.snapshot.spec.serving.port
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod gitops;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
