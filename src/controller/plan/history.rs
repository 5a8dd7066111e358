//! What is written down of a change: the entries of `status.history`, which live on the Service so that no decision and
//! no entry depends on the status. It must decide nothing.

use jiff::SignedDuration;

use crate::controller::assess::Target;
use crate::crd::{HistoryEntry, Outcome};
use crate::snapshot::{Selected, Snapshot, Workload};

/// Entries kept, newest first; the schema's limit.
const KEPT: usize = 10;

/// The endpoint moves to the target, from what it leads to now.
pub(super) fn switched(target: &Target, snapshot: &Snapshot) -> HistoryEntry {
    let from = selected(snapshot).filter(|from| from.workload != target.workload);
    let reason = match &from {
        None => "Deployed",
        Some(old) if old.quant != target.facts.quant => "QuantEdited",
        Some(old) if old.artifact != target.artifact => "SourceEdited",
        Some(old) if old.inputs.as_ref() == Some(&target.inputs) => "EngineUpdated",
        Some(_) => "ServerEdited",
    };
    let quant = from.map(|from| from.quant);
    entry(
        target,
        snapshot,
        quant,
        Outcome::Switched,
        reason.to_owned(),
    )
}

/// What the endpoint leads to: by its own record, which an old view of Deployments cannot hide, else by the Deployment
/// of the workload that it selects.
fn selected(snapshot: &Snapshot) -> Option<Selected> {
    let recorded = snapshot
        .service
        .as_ref()
        .and_then(|service| service.leads_to.clone());
    recorded.or_else(|| {
        let active = snapshot.active()?;
        Some(Selected {
            workload: active.id.clone(),
            artifact: active.artifact.clone(),
            quant: active.quant.clone(),
            inputs: active.inputs.clone(),
        })
    })
}

/// The target is given up for `old`.
pub(super) fn rolled_back(
    target: &Target,
    snapshot: &Snapshot,
    old: &Workload,
    reason: String,
) -> HistoryEntry {
    let quant = Some(old.quant.clone());
    entry(target, snapshot, quant, Outcome::RolledBack, reason)
}

/// The list with `entry` in it: in front, or in the place of the one of the same time.
#[must_use]
pub fn with(entry: &HistoryEntry, history: &[HistoryEntry]) -> Vec<HistoryEntry> {
    let others = history.iter().filter(|other| other.time != entry.time);
    std::iter::once(entry)
        .chain(others)
        .take(KEPT)
        .cloned()
        .collect()
}

fn entry(
    target: &Target,
    snapshot: &Snapshot,
    from: Option<String>,
    outcome: Outcome,
    reason: String,
) -> HistoryEntry {
    let last = snapshot
        .service
        .as_ref()
        .and_then(|service| service.history.first());
    // A volume of ours that was made for this KimiModel and since its last change was filled for this one. Kubernetes
    // cuts the moments that it writes down to whole seconds.
    let fetched = snapshot.claim(&target.artifact).is_some_and(|claim| {
        let adopted = snapshot
            .model
            .created
            .is_some_and(|born| claim.created < born);
        let age = |last: &HistoryEntry| last.time.duration_since(claim.created);
        let older = last.is_some_and(|last| age(last) >= SignedDuration::from_secs(1));
        !adopted && !older && !claim.given
    });
    let dark_since = snapshot
        .active()
        .filter(|old| old.id != target.workload && !old.pods.iter().any(|pod| pod.ready))
        .and_then(Workload::dark_since);
    HistoryEntry {
        time: snapshot.now,
        from,
        to: target.facts.quant.clone(),
        outcome,
        reason,
        bytes_fetched: if fetched {
            i64::try_from(target.facts.bytes).unwrap_or(i64::MAX)
        } else {
            0
        },
        outage_seconds: dark_since.map_or(0, |at| snapshot.now.duration_since(at).as_secs().max(0)),
    }
}
