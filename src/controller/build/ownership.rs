//! Whose an existing claim is: the owner annotation, and with `storage.whenDeleted: Delete` an owner reference, by which
//! Kubernetes itself deletes the claim. It must not know how a claim is filled or sized.
//!
//! Written as a merge patch beside the applied claim: an apply that left the owner reference out would take it off again,
//! and of claims that are not the target nothing else is rendered. The patch names the version of the claim that it was
//! made for, so that of two KimiModels after one claim the second is refused and looks again.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use spec::WhenDeleted;

use super::super::observe::claim::is_model;
use super::super::plan::{Decision, Step};
use super::super::validate::ValidModel;
use crate::names;
use crate::snapshot::{Holder, Snapshot};

/// A change of the owner of an existing claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Ownership {
    pub claim: String,
    /// The KimiModel.
    pub owner: OwnerReference,
    /// With an owner reference.
    pub goes_along: bool,
    /// It was somebody else's: what was verified then counts no more.
    pub taken_over: bool,
}

/// Changes for the claim being adopted, and for claims of ours that do not say what the spec does.
#[must_use]
pub fn build(model: &ValidModel, decision: &Decision, snapshot: &Snapshot) -> Vec<Ownership> {
    let goes_along = model.when_deleted == WhenDeleted::Delete;
    let claims = snapshot.claims.iter().filter(|claim| !claim.deleting);
    claims
        .filter_map(|claim| {
            let taken_over = claim.holder == Holder::Nobody
                && matches!(&decision.step, Step::Adopt { claim: name } if *name == claim.name);
            let strayed =
                claim.holder == Holder::Us && (claim.goes_along != goes_along || !claim.marked);
            (taken_over || strayed).then(|| Ownership {
                claim: claim.name.clone(),
                owner: super::owner(model),
                goes_along,
                taken_over,
            })
        })
        .collect()
}

impl Ownership {
    /// The merge patch for the live claim. Owner references of others stay; those of earlier KimiModels go, or the
    /// garbage collector would take the claim for theirs.
    #[must_use]
    pub fn patch(&self, live: &PersistentVolumeClaim) -> Value {
        let Self {
            claim: _,
            owner,
            goes_along,
            taken_over,
        } = self;
        let others = live.metadata.owner_references.iter().flatten();
        let mut owners: Vec<&OwnerReference> = others.filter(|other| !is_model(other)).collect();
        owners.extend(goes_along.then_some(owner));
        let mut annotations = json!({names::ANNOTATION_OWNER: owner.uid});
        if *taken_over {
            annotations[names::ANNOTATION_VERIFIED] = Value::Null;
        }
        json!({"metadata": {
            "resourceVersion": live.metadata.resource_version,
            "annotations": annotations,
            "ownerReferences": owners,
        }})
    }
}
