//! The planner's checks on volumes: whose the target's claim is before it is used, and which old ones go once a switch
//! has settled. It must not know how a claim is filled.

use std::time::Duration;

use spec::format_bytes;

use super::{Decision, Reason, Step};
use crate::controller::assess::Target;
use crate::controller::validate::ValidModel;
use crate::names;
use crate::snapshot::{Blocked, BlockedCause, Claim, Holder, Snapshot};

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

/// Before step 7: the volume was made on a Node that is no more, and the scheduler says that it is in no other's reach.
/// What was on it is lost; giving it up is the user's word to speak, since a Node may come back.
pub(super) fn lost(model: &ValidModel, target: &Target, snapshot: &Snapshot) -> Option<Decision> {
    // A volume that the user filled is the user's to give up.
    if model.source.volume.is_some() {
        return None;
    }
    let claim = snapshot
        .claim(&target.artifact)
        .filter(|claim| !claim.deleting)?;
    let node = claim.node.as_ref()?;
    if snapshot.nodes.iter().any(|known| known.name == *node) {
        return None;
    }
    let servers = snapshot
        .workloads
        .iter()
        .filter(|workload| workload.artifact == target.artifact)
        .flat_map(|workload| &workload.pods)
        .filter(|pod| !pod.terminating)
        .filter_map(|pod| pod.blocked.as_ref());
    let fetcher = snapshot.fetch_job(&target.artifact);
    fetcher
        .and_then(|job| job.blocked.as_ref())
        .into_iter()
        .chain(servers)
        .find(|blocked| is_out_of_reach(blocked))?;
    let name = &claim.name;
    if model.refetch.is_some() && claim.refetched != model.refetch {
        let message = format!(
            "PersistentVolumeClaim {name} was lost with Node {node} and is given up, as annotated: its weights are \
             fetched anew"
        );
        let step = Step::Abandon {
            claim: name.clone(),
            uid: claim.uid.clone(),
        };
        return Some(Decision::new(step, Reason::NodeLost, message));
    }
    let message = format!(
        "Node {node}, which held the weights in PersistentVolumeClaim {name}, is gone, and no other Node reaches them. \
         To fetch them anew elsewhere: kubectl annotate kimimodel {} --overwrite {}=\"$(date)\"",
        model.name,
        names::ANNOTATION_REFETCH
    );
    Some(Decision::refused(Reason::NodeLost, message))
}

/// The scheduler's words for a volume that no remaining Node reaches, as they were and as they are since Kubernetes 1.33.
fn is_out_of_reach(blocked: &Blocked) -> bool {
    let words = blocked.message.to_ascii_lowercase();
    blocked.cause == BlockedCause::Unschedulable
        && (words.contains("volume node affinity conflict")
            || words.contains("match persistentvolume's node affinity"))
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::controller::plan::plan;
    use crate::snapshot::{JobKind, JobPhase, JobState};
    use crate::testing;

    /// A claim made for a Node, and a fetch pod about which the scheduler says `words`.
    fn blocked_on(node: &str, words: &str) -> Snapshot {
        let mut snapshot = testing::snapshot(testing::MINIMAL);
        let source = testing::assessed(&snapshot).model.unwrap().source.id;
        let mut claim = testing::claim(testing::facts("Q4_K_M"));
        claim.source = source;
        claim.node = Some(node.to_owned());
        let artifact = claim.artifact.clone();
        snapshot.claims.push(claim);
        snapshot.jobs.push(JobState {
            name: "fetch".to_owned(),
            uid: "uid-fetch".to_owned(),
            kind: JobKind::Fetch { artifact },
            ours: true,
            inputs: String::new(),
            phase: JobPhase::Active,
            suspended: false,
            deleting: false,
            created: testing::epoch(),
            failure: None,
            facts: None,
            blocked: Some(Blocked {
                cause: BlockedCause::Unschedulable,
                since: testing::epoch(),
                message: words.to_owned(),
            }),
            progress: None,
        });
        snapshot
    }

    #[test]
    fn a_volume_lost_with_its_node_is_given_up_on_the_users_word() {
        let words =
            "0/1 nodes are available: 1 node(s) didn't match PersistentVolume's node affinity.";
        let mut snapshot = blocked_on("gone", words);
        let decision = plan(&testing::assessed(&snapshot), &snapshot);
        assert_eq!(
            (&decision.step, &decision.reason),
            (&Step::Refused, &Reason::NodeLost)
        );
        assert!(decision.stalled && decision.message.contains("kimioperator.dev/refetch"));
        snapshot.model.refetch = Some("now".to_owned());
        let decision = plan(&testing::assessed(&snapshot), &snapshot);
        let claim = &snapshot.claims[0];
        let (name, uid) = (claim.name.clone(), claim.uid.clone());
        assert_eq!(decision.step, Step::Abandon { claim: name, uid });
    }

    #[test]
    fn a_node_that_is_there_or_a_pod_without_room_loses_nothing() {
        let elsewhere = "1 node(s) had volume node affinity conflict";
        for snapshot in [
            blocked_on("n1", elsewhere),
            blocked_on("gone", "1 Insufficient memory"),
        ] {
            let decision = plan(&testing::assessed(&snapshot), &snapshot);
            assert_ne!(decision.reason, Reason::NodeLost, "{}", decision.message);
        }
    }
}
