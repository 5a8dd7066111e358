//! Whose an existing claim is: the owner annotation, and with `storage.whenDeleted: Delete` an owner reference, by which
//! Kubernetes itself deletes the claim. It must not know how a claim is filled or sized.
//!
//! Written as a merge patch beside the applied claim: an apply that left the owner reference out would take it off again,
//! and of claims that are not the target nothing else is rendered. The patch names the version of the claim that it was
//! made for, so that of two KimiModels after one claim the second is refused and looks again.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::{Value, json};
use spec::WhenDeleted;

use super::super::assess::Target;
use super::super::observe::claim::is_model;
use super::super::plan::{Decision, Step};
use super::super::validate::ValidModel;
use super::Error;
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
    /// On a volume that the user gave: what was found there.
    pub found: BTreeMap<&'static str, String>,
}

/// Changes for the claim being adopted, for claims of ours that do not say what the spec does, and for a given volume
/// that was checked.
///
/// # Errors
/// When the facts cannot be written as JSON, which is a bug.
pub fn build(
    model: &ValidModel,
    target: Option<&Target>,
    decision: &Decision,
    snapshot: &Snapshot,
) -> Result<Vec<Ownership>, Error> {
    if let (Some(claim), Some(target), Step::MarkVerified) =
        (&model.source.volume, target, &decision.step)
    {
        let found = BTreeMap::from([
            (names::LABEL_ARTIFACT, target.artifact.clone()),
            (names::LABEL_SOURCE, model.source.id.clone()),
            (
                names::ANNOTATION_FACTS,
                super::json("facts", &target.facts)?,
            ),
            (
                names::ANNOTATION_VERIFIED,
                names::verified_value(&target.facts),
            ),
        ]);
        return Ok(vec![Ownership {
            claim: claim.clone(),
            owner: super::owner(model),
            goes_along: false,
            taken_over: false,
            found,
        }]);
    }
    let goes_along = model.when_deleted == WhenDeleted::Delete;
    let claims = snapshot
        .claims
        .iter()
        .filter(|claim| !claim.deleting && !claim.given);
    let changes = claims.filter_map(|claim| {
        let taken_over = claim.holder == Holder::Nobody
            && matches!(&decision.step, Step::Adopt { claim: name } if *name == claim.name);
        let strayed =
            claim.holder == Holder::Us && (claim.goes_along != goes_along || !claim.marked);
        (taken_over || strayed).then(|| Ownership {
            claim: claim.name.clone(),
            owner: super::owner(model),
            goes_along,
            taken_over,
            found: BTreeMap::new(),
        })
    });
    Ok(changes.collect())
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
            found,
        } = self;
        let others = live.metadata.owner_references.iter().flatten();
        let mut owners: Vec<&OwnerReference> = others.filter(|other| !is_model(other)).collect();
        owners.extend(goes_along.then_some(owner));
        let mut annotations = json!({names::ANNOTATION_OWNER: owner.uid});
        for (key, text) in found {
            annotations[*key] = json!(text);
        }
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
