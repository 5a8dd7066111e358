//! What is worth an Event: the difference between two statuses, in the few words that a person wants to read in
//! `kubectl describe`. Pure. Since a status is written only when it changes, the same news is told once; a status that
//! was deleted tells again only what still stands.

use kube::runtime::events::{Event, EventType};

use crate::crd::{KimiModelStatus, Outcome};

/// The API's limit of a note, in bytes.
const MAX_NOTE: usize = 1024;

/// The Events that `new` is worth after `old`.
#[must_use]
pub fn news(old: Option<&KimiModelStatus>, new: &KimiModelStatus) -> Vec<Event> {
    let mut events = Vec::new();
    let mut tell = |type_, reason: &str, action: &str, note: &str| {
        events.push(Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note[..note.floor_char_boundary(MAX_NOTE)].to_owned()),
            action: action.to_owned(),
            secondary: None,
        });
    };
    if let Some(note) = turned_true("Planned", old, new) {
        tell(EventType::Normal, "Planned", "Plan", note);
    }
    if let Some(note) = turned_true("ArtifactReady", old, new).filter(|_| old.is_some()) {
        tell(EventType::Normal, "Staged", "Fetch", note);
    }
    let last = |status: &KimiModelStatus| status.history.first().map(|entry| entry.time);
    let newest = new
        .history
        .first()
        .filter(|entry| old.is_some_and(|old| last(old) != Some(entry.time)));
    if let Some(entry) = newest {
        let from = entry.from.as_deref().unwrap_or("nothing");
        match entry.outcome {
            Outcome::Switched => {
                let note = format!(
                    "from {from} to {} ({}): {} bytes fetched, {} s without a server",
                    entry.to, entry.reason, entry.bytes_fetched, entry.outage_seconds
                );
                tell(EventType::Normal, "Switched", "Switch", &note);
            }
            Outcome::RolledBack => {
                let said = condition("Stalled", new).map_or("", |stalled| &stalled.message);
                tell(EventType::Warning, "RolledBack", "Switch", said);
            }
        }
    }
    let reason = |status: &KimiModelStatus| {
        condition("Stalled", status)
            .filter(|stalled| stalled.status == "True")
            .map(|stalled| stalled.reason.clone())
    };
    if let Some(word) = reason(new).filter(|word| old.and_then(reason).as_ref() != Some(word))
        && word != "RolledBack"
    {
        let said = condition("Stalled", new).map_or("", |stalled| &stalled.message);
        tell(EventType::Warning, &word, "Reconcile", said);
    }
    events
}

/// The message of a condition that is True and was not, or was so for another quant.
fn turned_true<'a>(
    kind: &str,
    old: Option<&KimiModelStatus>,
    new: &'a KimiModelStatus,
) -> Option<&'a str> {
    let holds = |status: &KimiModelStatus| {
        condition(kind, status).is_some_and(|condition| condition.status == "True")
    };
    let told = old.is_some_and(|old| holds(old) && old.target_quant == new.target_quant);
    condition(kind, new)
        .filter(|_| holds(new) && !told)
        .map(|condition| condition.message.as_str())
}

pub(super) fn condition<'a>(
    kind: &str,
    status: &'a KimiModelStatus,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
}
