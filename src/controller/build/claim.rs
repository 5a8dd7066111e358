//! The PVC of one artifact. It outlives edits and carries, as annotations, all that must be known about its contents.
//! It must know nothing about pods.

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::super::assess::Target;
use super::super::plan::{Decision, Step};
use super::super::validate::ValidModel;
use super::Error;
use crate::names::{self, Component};
use crate::snapshot::{Claim, Holder, Snapshot};

/// The claim, when it exists or is to be made now. The class of an existing claim is repeated as observed, and so is its
/// size, unless [`grows`].
///
/// # Errors
/// When the facts cannot be written as JSON, which is a bug.
pub fn build(
    model: &ValidModel,
    target: &Target,
    storage_bytes: u64,
    decision: &Decision,
    snapshot: &Snapshot,
) -> Result<Option<PersistentVolumeClaim>, Error> {
    let live = snapshot.claim(&target.artifact);
    if model.source.volume.is_some() {
        return Ok(None);
    }
    let untouchable = |claim: &Claim| claim.deleting || claim.holder != Holder::Us;
    if live.is_some_and(untouchable) || (live.is_none() && decision.step != Step::Fetch) {
        return Ok(None);
    }
    // A claim's class and access modes cannot change: a live one keeps its own.
    let modes = live
        .map(|claim| claim.access_modes.clone())
        .filter(|modes| !modes.is_empty())
        .unwrap_or_else(|| vec![model.access_mode.as_str().to_owned()]);
    let (bytes, class) = match live {
        Some(claim) if grows(model, claim, decision) => (
            claim.requested.max(storage_bytes),
            claim.storage_class.clone(),
        ),
        Some(claim) => (claim.requested, claim.storage_class.clone()),
        None => (storage_bytes, model.storage_class.clone()),
    };
    // Labelled as the fetcher's work; every server of the artifact mounts it.
    let mut metadata = super::metadata(
        model,
        names::claim(&model.name, &target.artifact),
        Component::Fetch,
    );
    // Whether it goes with the KimiModel is `ownership`'s to write.
    metadata.owner_references = None;
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(names::LABEL_ARTIFACT.to_owned(), target.artifact.clone());
    labels.insert(names::LABEL_SOURCE.to_owned(), model.source.id.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(
        names::ANNOTATION_FACTS.to_owned(),
        super::json("facts", &target.facts)?,
    );
    annotations.insert(names::ANNOTATION_OWNER.to_owned(), model.uid.clone());
    let verified = match decision.step {
        Step::MarkVerified => Some(names::verified_value(&target.facts)),
        _ => live.and_then(|claim| claim.verified.clone()),
    };
    if let Some(verified) = verified {
        annotations.insert(names::ANNOTATION_VERIFIED.to_owned(), verified);
    }
    let served = match &decision.step {
        Step::Flip { entry } => Some(entry.time),
        _ => live.and_then(|claim| claim.served),
    };
    if let Some(served) = served {
        annotations.insert(names::ANNOTATION_SERVED.to_owned(), served.to_string());
    }
    let refetched = match (&decision.step, live) {
        (Step::MarkVerified, _) | (_, None) => model.refetch.as_ref(),
        (_, Some(claim)) => claim.refetched.as_ref(),
    };
    if let Some(refetched) = refetched {
        annotations.insert(names::ANNOTATION_REFETCHED.to_owned(), refetched.clone());
    }
    if let Some(choice) = &model.choice {
        annotations.insert(names::ANNOTATION_CHOICE.to_owned(), choice.question.clone());
    }
    Ok(Some(PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes),
            storage_class_name: class,
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(bytes.to_string()))].into()),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }))
}

/// Whether the headroom asked for may enlarge a live claim: more room is what mends a full volume. Only while weights are
/// being fetched, when nothing else waits to be written: a StorageClass that does not expand volumes refuses this, and
/// the refusal then shows as a condition and holds up no other step. The API server enlarges bound claims only.
fn grows(model: &ValidModel, claim: &Claim, decision: &Decision) -> bool {
    model.headroom.is_some()
        && claim.bound
        && claim.verified.is_none()
        && decision.step == Step::WaitFetch
}
