//! The list of a model's volumes with what each is for. It must know no condition.

use super::Inputs;
use crate::crd::VolumeStatus;
use crate::snapshot::{Claim, Holder};

/// The schema's limit.
const MAX: usize = 32;

pub(super) fn volumes(inputs: Inputs<'_>) -> Vec<VolumeStatus> {
    let claims = inputs.snapshot.claims.iter();
    claims
        .map(|claim| VolumeStatus {
            claim_name: claim.name.clone(),
            quant: claim.facts.as_ref().map(|facts| facts.quant.clone()),
            bytes: i64::try_from(claim.requested).unwrap_or(i64::MAX),
            state: state(inputs, claim).to_owned(),
        })
        .take(MAX)
        .collect()
}

fn state(inputs: Inputs<'_>, claim: &Claim) -> &'static str {
    let Inputs {
        snapshot,
        assessment,
        ..
    } = inputs;
    let is = |artifact: Option<&String>| artifact == Some(&claim.artifact);
    match claim.holder {
        _ if claim.deleting => "Deleting",
        Holder::Nobody => "Orphaned",
        Holder::Other(_) => "Taken",
        Holder::Us if is(snapshot.active().map(|active| &active.artifact)) => "Active",
        Holder::Us if is(assessment.target.as_ref().map(|target| &target.artifact)) => "Target",
        Holder::Us => "Kept",
    }
}
