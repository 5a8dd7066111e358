//! What is written down of a change: the entries of `status.history`, which live on the Service so that no decision and
//! no entry depends on the status. It must decide nothing.

use crate::controller::assess::Target;
use crate::crd::{HistoryEntry, Outcome};
use crate::snapshot::{Snapshot, Workload};

/// Entries kept, newest first; the schema's limit.
const KEPT: usize = 10;

/// The endpoint moves from `old` to the target.
pub(super) fn switched(
    target: &Target,
    snapshot: &Snapshot,
    old: Option<&Workload>,
) -> HistoryEntry {
    let reason = match old {
        None => "Deployed",
        Some(old) if old.quant != target.facts.quant => "QuantEdited",
        Some(old) if old.artifact != target.artifact => "SourceEdited",
        Some(old) if old.inputs.as_ref() == Some(&target.inputs) => "EngineUpdated",
        Some(_) => "ServerEdited",
    };
    entry(target, snapshot, old, Outcome::Switched, reason.to_owned())
}

/// The target is given up for `old`.
pub(super) fn rolled_back(
    target: &Target,
    snapshot: &Snapshot,
    old: &Workload,
    reason: String,
) -> HistoryEntry {
    entry(target, snapshot, Some(old), Outcome::RolledBack, reason)
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
    old: Option<&Workload>,
    outcome: Outcome,
    reason: String,
) -> HistoryEntry {
    let last = snapshot
        .service
        .as_ref()
        .and_then(|service| service.history.first());
    // A volume made since the last change was filled for this one.
    let fetched = snapshot
        .claim(&target.artifact)
        .is_some_and(|claim| last.is_none_or(|last| claim.created > last.time));
    let stopped_at = old
        .filter(|old| old.replicas == 0)
        .and_then(|old| old.stopped_at);
    HistoryEntry {
        time: snapshot.now,
        from: old.map(|old| old.quant.clone()),
        to: target.facts.quant.clone(),
        outcome,
        reason,
        bytes_fetched: if fetched {
            i64::try_from(target.facts.bytes).unwrap_or(i64::MAX)
        } else {
            0
        },
        outage_seconds: stopped_at.map_or(0, |at| snapshot.now.duration_since(at).as_secs().max(0)),
    }
}
