//! One PVC as decisions see it: what it holds, whose it is, and whether a pod has it. It must decide nothing.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt;
use sizing::Facts;

use super::super::pods;
use super::{Live, annotation, created, label};
use crate::names;
use crate::snapshot::{Claim, Holder};

/// UID of the KimiModel that a claim belongs to: as written on it, or by its owner reference on claims of operators that
/// wrote only that.
pub(crate) fn owner_uid(meta: &ObjectMeta) -> Option<&str> {
    let referred = meta.owner_references.iter().flatten();
    annotation(meta, names::ANNOTATION_OWNER).or_else(|| {
        referred
            .filter(|owner| is_model(owner))
            .map(|owner| owner.uid.as_str())
            .next()
    })
}

/// True for an owner reference to a KimiModel.
pub(crate) fn is_model(owner: &OwnerReference) -> bool {
    owner.kind == spec::KIND && owner.api_version.starts_with(spec::GROUP)
}

pub(super) fn observe(
    claim: &PersistentVolumeClaim,
    live: &Live,
    model_uid: &str,
    now: Timestamp,
) -> Option<Claim> {
    let meta = &claim.metadata;
    let spec = claim.spec.as_ref()?;
    let requested = spec
        .resources
        .as_ref()
        .and_then(|r| r.requests.as_ref())
        .and_then(|r| r.get("storage"));
    let given = live
        .given
        .as_deref()
        .is_some_and(|given| given.metadata.name == meta.name);
    let id = |key: &str| {
        if given {
            annotation(meta, key)
        } else {
            label(meta, key)
        }
    };
    // What is on a given volume is unknown until it was checked.
    let artifact = id(names::LABEL_ARTIFACT).or(given.then_some(""))?;
    let holder = match owner_uid(meta) {
        Some(uid) if uid == model_uid => Holder::Us,
        Some(uid) => live
            .models
            .get(uid)
            .map_or(Holder::Nobody, |name| Holder::Other(name.clone())),
        None => Holder::Nobody,
    };
    let bound = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some("Bound");
    let mut owners = meta.owner_references.iter().flatten();
    Some(Claim {
        name: claim.name_any(),
        uid: claim.uid()?,
        holder,
        given,
        marked: annotation(meta, names::ANNOTATION_OWNER) == Some(model_uid),
        goes_along: owners.any(|owner| owner.uid == model_uid),
        mounted: live
            .pods
            .iter()
            .any(|pod| label(&pod.metadata, names::LABEL_ARTIFACT) == Some(artifact)),
        served: annotation(meta, names::ANNOTATION_SERVED).and_then(|time| time.parse().ok()),
        artifact: artifact.to_owned(),
        source: id(names::LABEL_SOURCE).unwrap_or_default().to_owned(),
        facts: annotation(meta, names::ANNOTATION_FACTS).and_then(|json| Facts::parse(json).ok()),
        verified: annotation(meta, names::ANNOTATION_VERIFIED).map(str::to_owned),
        choice: annotation(meta, names::ANNOTATION_CHOICE).map(str::to_owned),
        refetched: annotation(meta, names::ANNOTATION_REFETCHED).map(str::to_owned),
        node: annotation(meta, names::ANNOTATION_SELECTED_NODE).map(str::to_owned),
        requested: requested
            .and_then(|quantity| spec::parse_quantity(&quantity.0))
            .unwrap_or(0),
        storage_class: spec.storage_class_name.clone(),
        access_modes: spec.access_modes.clone().unwrap_or_default(),
        refused: pods::provisioner_said(&live.events, &meta.uid).filter(|_| !bound),
        bound,
        deleting: meta.deletion_timestamp.is_some(),
        created: created(meta, now),
    })
}
