//! The planner's checks on volumes: whose the target's claim is before it is used, and which old ones go once a switch
//! has settled. It must not know how a claim is filled.

use spec::format_bytes;

use super::{Decision, Reason, Step};
use crate::controller::assess::Target;
use crate::controller::validate::ValidModel;
use crate::snapshot::{Claim, Holder, Snapshot};

/// Before step 7: a claim that is not ours is taken over if nobody has it, and left alone if somebody does.
pub(super) fn adopt(target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    let claim = snapshot
        .claim(&target.artifact)
        .filter(|claim| !claim.deleting)?;
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
        .filter(|claim| claim.holder == Holder::Us && !claim.deleting)
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
