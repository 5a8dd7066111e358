//! The planner's checks on volumes: whose the target's claim is before it is used, and which old ones go once a switch
//! has settled. It must not know how a claim is filled.

use std::time::Duration;

use spec::format_bytes;

use super::{Decision, Reason, Step};
use crate::controller::assess::Target;
use crate::controller::validate::ValidModel;
use crate::names;
use crate::snapshot::{Claim, Holder, Snapshot};

/// When a volume that no watch shows is looked at after a write.
const AGAIN: Duration = Duration::from_secs(1);

/// Step 4: the volume that `spec.source.pvc` names is there and free.
pub(super) fn given(model: &ValidModel, snapshot: &Snapshot) -> Option<Decision> {
    let name = model.source.volume.as_ref()?;
    let refusal = match snapshot.given() {
        None => (
            Reason::VolumeMissing,
            format!(
                "spec.source.pvc: there is no PersistentVolumeClaim {name}: create it and copy the weights to it"
            ),
        ),
        Some(claim) if claim.deleting => (
            Reason::VolumeMissing,
            format!("spec.source.pvc: PersistentVolumeClaim {name} is being deleted"),
        ),
        Some(claim) => match &claim.holder {
            Holder::Us | Holder::Nobody => return None,
            Holder::Other(other) => (
                Reason::VolumeTaken,
                format!(
                    "spec.source.pvc: PersistentVolumeClaim {name} belongs to KimiModel {other}, which exists"
                ),
            ),
        },
    };
    Some(Decision::refused(refusal.0, refusal.1))
}

/// Step 7 with `spec.source.pvc`: what was found on the volume is written on it.
pub(super) fn record(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    let name = model.source.volume.as_ref()?;
    let verified = names::verified_value(&target.facts);
    let known = snapshot.given().is_some_and(|claim| {
        claim.verified.as_ref() == Some(&verified)
            && claim.holder == Holder::Us
            && claim.artifact == target.artifact
    });
    if known {
        return None;
    }
    let message = format!(
        "{} on PersistentVolumeClaim {name} checked",
        format_bytes(target.facts.bytes)
    );
    // No watch shows this volume.
    Some(Decision::new(Step::MarkVerified, Reason::Verified, message).every(AGAIN))
}

/// Before step 7: a claim that is not ours is taken over if nobody has it, and left alone if somebody does.
pub(super) fn adopt(target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    let claim = snapshot
        .claim(&target.artifact)
        .filter(|claim| !claim.deleting && !claim.given)?;
    let name = &claim.name;
    match &claim.holder {
        Holder::Us => None,
        Holder::Nobody => {
            let message = format!(
                "PersistentVolumeClaim {name} was retained with {}: it is taken over and checked",
                target.facts.quant
            );
            let step = Step::Adopt {
                claim: name.clone(),
            };
            Some(Decision::new(step, Reason::Adopting, message))
        }
        Holder::Other(other) => {
            let message = format!(
                "PersistentVolumeClaim {name} belongs to KimiModel {other}, which exists: delete that one, or name \
                 this one differently"
            );
            Some(Decision::new(Step::WaitFetch, Reason::VolumeTaken, message).stalled(true))
        }
    }
}

/// Step 13: with `storage.keepQuants`, the claims beyond that number go, those served longest ago first. Only a target
/// that answers alone gets here; weights that no pod has proven (replicas 0) delete nothing, and a claim that a pod still
/// mounts is left until the pod is gone, so that a deletion is never a wait.
pub(super) fn prune(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    let keep = model.keep_quants?;
    if model.replicas == 0 {
        return None;
    }
    let mut others: Vec<&Claim> = snapshot
        .claims
        .iter()
        .filter(|claim| claim.artifact != target.artifact)
        .filter(|claim| claim.holder == Holder::Us && !claim.deleting && !claim.given)
        .collect();
    let rank = |claim: &Claim| (claim.verified.is_some(), claim.served, claim.created);
    others.sort_by(|a, b| rank(b).cmp(&rank(a)).then_with(|| a.name.cmp(&b.name)));
    let free = |claim: &&&Claim| !claim.mounted && snapshot.fetch_job(&claim.artifact).is_none();
    let oldest = others.get(keep..)?.iter().rev().find(free)?;
    let facts = oldest.facts.as_ref();
    let message = format!(
        "storage.keepQuants is {keep}: PersistentVolumeClaim {} with {} ({}) goes",
        oldest.name,
        facts.map_or("unknown weights", |facts| facts.quant.as_str()),
        format_bytes(oldest.requested)
    );
    let step = Step::Prune {
        claim: oldest.name.clone(),
        uid: oldest.uid.clone(),
    };
    Some(Decision::new(step, Reason::Pruning, message))
}
