//! The planner's words and steps about room for weights: what cannot be changed on a volume, which weights are in the
//! way, and how `rollout.strategy: Replace` makes room. It must know nothing about servers but which weights they serve.

use spec::{AccessMode, Strategy, format_bytes};

use super::{Decision, Reason, Step};
use crate::controller::assess::Target;
use crate::controller::validate::ValidModel;
use crate::snapshot::{Claim, Snapshot};

/// What the spec asks of a volume that stands already and cannot be given. The weights would have to move to another
/// volume, which is a person's decision: it means fetching them again.
pub(super) fn unchangeable(model: &ValidModel, claim: &Claim) -> Option<Decision> {
    let wanted_class = model.storage_class.as_ref();
    let class = claim
        .storage_class
        .as_ref()
        .filter(|class| wanted_class.is_some_and(|wanted| wanted != *class));
    let shared = [AccessMode::ReadWriteMany, AccessMode::ReadOnlyMany].map(AccessMode::as_str);
    let alone = model.replicas > 1
        && !claim.access_modes.is_empty()
        && !claim
            .access_modes
            .iter()
            .any(|mode| shared.contains(&mode.as_str()));
    let fault = match (class, alone) {
        (Some(class), _) => format!("has the StorageClass {class}"),
        (None, true) => format!(
            "is {} and one Node mounts it",
            claim.access_modes.join(", ")
        ),
        (None, false) => return None,
    };
    let message = format!(
        "PersistentVolumeClaim {} {fault}, which cannot change: take the edit back, or set suspend, delete the claim and \
         resume to fetch the weights into a new one",
        claim.name
    );
    Some(Decision::refused(Reason::StorageUnchangeable, message))
}

/// Replace: the weights that serve have to go before others are fetched.
pub(super) fn free(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    if model.strategy != Strategy::Replace {
        return None;
    }
    let old = snapshot
        .active()
        .filter(|active| active.artifact != target.artifact)?;
    let claim = snapshot.claim(&old.artifact)?;
    let message = format!(
        "rollout.strategy is Replace: {} stops and PersistentVolumeClaim {} goes before {} is fetched",
        old.quant, claim.name, target.facts.quant
    );
    Some(Decision::new(Step::Free, Reason::FreeingStorage, message))
}

/// Says in `decision`, of a fetch that gets nowhere, that there is no room, who says so, and what would make some.
pub(super) fn insufficient(
    model: &ValidModel,
    target: &Target,
    snapshot: &Snapshot,
    claim: &Claim,
    decision: Decision,
) -> Decision {
    let full = decision.reason == Reason::Reported("DiskFull".to_owned());
    let (reason, said) = match (&claim.refused, decision.reason == Reason::Unschedulable) {
        (Some(words), _) if lacks_room(words) => (
            Reason::InsufficientStorage,
            format!("the provisioner says (event ProvisioningFailed): {words}"),
        ),
        (Some(words), _) => (
            Reason::ProvisioningFailed,
            format!(
                "the provisioner says of PersistentVolumeClaim {}: {words}",
                claim.name
            ),
        ),
        (None, true) if decision.message.contains("enough free storage") => (
            Reason::InsufficientStorage,
            format!("the scheduler says: {}", decision.message),
        ),
        // A volume that is alone is only too small; its own message says what to raise.
        (None, _) if full && in_the_way(target, snapshot).is_some() => (
            Reason::InsufficientStorage,
            format!(
                "the fetch says of its volume (statvfs): {}",
                decision.message
            ),
        ),
        (None, _) => return decision,
    };
    let message = format!(
        "{} of weights need a volume of {}; {said}{}",
        format_bytes(target.facts.bytes),
        format_bytes(claim.requested),
        way_out(model, target, snapshot)
    );
    Decision {
        reason,
        message,
        stalled: true,
        ..decision
    }
}

/// The end of a message about missing room: which weights Replace would free.
#[must_use]
pub fn way_out(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> String {
    match in_the_way(target, snapshot) {
        Some(claim) if model.strategy == Strategy::Staged => format!(
            "; rollout.strategy: Replace would first free PersistentVolumeClaim {} ({}), at the price of an outage",
            claim.name,
            format_bytes(claim.requested)
        ),
        _ => String::new(),
    }
}

/// The volume of the weights that serve now, where those are others than the target's.
fn in_the_way<'a>(target: &Target, snapshot: &'a Snapshot) -> Option<&'a Claim> {
    let old = snapshot.active()?;
    snapshot
        .claim(&old.artifact)
        .filter(|claim| claim.artifact != target.artifact && !claim.deleting)
}

/// Whether a provisioner's words are about room: the code that CSI has for it, or plain words.
fn lacks_room(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    let signs = [
        "resourceexhausted",
        "outofrange",
        "insufficient",
        "not enough",
        "no space",
        "exceeded",
    ];
    signs.iter().any(|sign| words.contains(sign))
}
