//! Decision → [`Resources<Prepared>`]: the objects a step wants, and nothing else. It must know no client; everything it
//! returns is data that apply writes as it stands.

mod additions;
pub mod claim;
pub mod deployment;
pub mod fetch_job;
pub mod guards;
pub mod inspect_job;
pub mod ownership;
mod pod;
pub mod service;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
mod verify_job;

use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use self::ownership::Ownership;
use super::assess::{Assessment, Target};
use super::plan::{Decision, Reason, Step};
use super::validate::ValidModel;
use crate::names::{self, Component};
use crate::snapshot::{Holder, JobKind, JobPhase, Snapshot, Workload};

/// An object that cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {what} as JSON: {source}")]
pub struct Error {
    pub what: &'static str,
    pub source: serde_json::Error,
}

/// What the operator's own flags say about every pod it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image with the `kimi` command.
    pub worker_image: String,
    pub image_pull_policy: String,
    /// `None` where the platform assigns one (OpenShift).
    pub run_as_user: Option<i64>,
    pub fs_group: Option<i64>,
    /// Fields of `spec.pod` that the administrator does not allow, of [`spec::pod::POD_FIELDS`].
    pub forbidden_pod_fields: Vec<String>,
}

/// Stage: built, not written.
#[derive(Clone, Copy, Debug)]
pub enum Prepared {}
/// Stage: written; the only stage that status takes.
#[derive(Clone, Copy, Debug)]
pub enum Applied {}

/// Everything one step writes. Lists are written in the order of the fields.
#[derive(Clone, Debug)]
pub struct Resources<Stage> {
    /// Applied.
    pub claims: Vec<PersistentVolumeClaim>,
    /// Merge patches of existing claims.
    pub ownerships: Vec<Ownership>,
    /// Made when absent. A Job's template is immutable: an existing one is never applied again.
    pub jobs: Vec<Job>,
    /// Applied.
    pub deployments: Vec<Deployment>,
    /// Replicas and a few annotations of Deployments, nothing else: of those that are not the target, of a target that
    /// was stopped once and runs again, and of one that is kept as an earlier version of the operator made it.
    pub scales: Vec<Scale>,
    /// Applied.
    pub services: Vec<Service>,
    /// Applied.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Applied.
    pub policies: Vec<NetworkPolicy>,
    /// `spec.suspend` of existing Jobs.
    pub suspensions: Vec<Suspension>,
    /// Deleted if the UID still matches: Deployments and claims in the background, Jobs in the foreground, so that a Job stays
    /// visible until its pods have let go of the volume.
    pub deletions: Vec<Deletion>,
    pub stage: PhantomData<Stage>,
}

/// A change of replicas of an existing Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub deployment: String,
    pub replicas: i32,
    /// Set with replicas 0 on the one-slot path, when no pod of it was ready any more, and when the last was gone; `None`
    /// removes the annotation.
    pub stopped_at: Option<Timestamp>,
    pub dark_at: Option<Timestamp>,
    pub emptied_at: Option<Timestamp>,
    /// The inputs annotation, where it is to be written on a Deployment that is not rendered.
    pub inputs: Option<String>,
}

/// A change of `spec.suspend` of an existing Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspension {
    pub job: String,
    pub suspend: bool,
}

/// An object to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    pub kind: DeletedKind,
    pub name: String,
    pub uid: String,
}

/// Kinds that the operator deletes; a claim only where `storage.keepQuants` or `rollout.strategy: Replace` says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletedKind {
    Job,
    Deployment,
    Claim,
    Budget,
    Policy,
}

impl<Stage> Default for Resources<Stage> {
    fn default() -> Self {
        Self {
            claims: Vec::new(),
            ownerships: Vec::new(),
            jobs: Vec::new(),
            deployments: Vec::new(),
            scales: Vec::new(),
            services: Vec::new(),
            budgets: Vec::new(),
            policies: Vec::new(),
            suspensions: Vec::new(),
            deletions: Vec::new(),
            stage: PhantomData,
        }
    }
}

impl Resources<Prepared> {
    /// Called by apply once everything is written.
    #[must_use]
    pub fn applied(self) -> Resources<Applied> {
        let Self {
            claims,
            ownerships,
            jobs,
            deployments,
            scales,
            services,
            budgets,
            policies,
            suspensions,
            deletions,
            stage: _,
        } = self;
        Resources {
            claims,
            ownerships,
            jobs,
            deployments,
            scales,
            services,
            budgets,
            policies,
            suspensions,
            deletions,
            stage: PhantomData,
        }
    }
}

/// The objects that a decision wants. Deployments that serve but are not the target are only scaled or deleted, never
/// rendered: their template came from an earlier spec.
///
/// # Errors
/// Only when an object cannot be written as JSON, which is a bug.
pub fn build(
    settings: &Settings,
    assessment: &Assessment,
    decision: &Decision,
    snapshot: &Snapshot,
) -> Result<Resources<Prepared>, Error> {
    let mut resources = Resources::default();
    if decision.step == Step::Deleting {
        return Ok(resources);
    }
    let Ok(model) = &assessment.model else {
        restore(snapshot, &mut resources);
        return Ok(resources);
    };
    let target = assessment.target.as_ref();
    resources
        .jobs
        .extend(new_job(settings, model, assessment, decision, snapshot)?);
    if let Some(target) = target {
        let storage_bytes = assessment
            .plan
            .as_ref()
            .map_or(0, |plan| plan.storage_bytes);
        resources.claims.extend(claim::build(
            model,
            target,
            storage_bytes,
            decision,
            snapshot,
        )?);
        if runs_target(&decision.step)
            && !snapshot
                .workload(&target.workload)
                .is_some_and(|live| live.deleting)
        {
            let template = target.template.as_ref();
            resources
                .deployments
                .extend(template.map(|template| deployment::build(model, target, template)));
        }
    }
    resources.ownerships = ownership::build(model, target, decision, snapshot)?;
    resources.scales = scales(model, target, decision, snapshot);
    resources
        .services
        .push(service::build(model, target, decision, snapshot)?);
    resources.budgets.extend(guards::budget(model));
    resources.policies = guards::policies(model);
    resources.suspensions = suspensions(model, snapshot);
    resources.deletions = deletions(model, target, decision, snapshot);
    resources.deletions.extend(unguarded(&resources, snapshot));
    Ok(resources)
}

/// A spec that cannot be acted on stops nothing, and what was stopped to make room for the spec before it starts again.
fn restore(snapshot: &Snapshot, resources: &mut Resources<Prepared>) {
    let stopped = snapshot
        .active()
        .filter(|active| active.stopped_at.is_some() && !active.deleting);
    let Some(active) = stopped else { return };
    resources.scales.push(Scale {
        deployment: active.name.clone(),
        replicas: snapshot.spec.serving.replicas.clamp(1, 1000),
        stopped_at: None,
        dark_at: None,
        emptied_at: None,
        inputs: None,
    });
    let others = snapshot
        .workloads
        .iter()
        .filter(|other| other.id != active.id);
    resources.deletions.extend(others.filter_map(delete));
}

fn delete(workload: &Workload) -> Option<Deletion> {
    (!workload.deleting).then(|| Deletion {
        kind: DeletedKind::Deployment,
        name: workload.name.clone(),
        uid: workload.uid.clone(),
    })
}

fn new_job(
    settings: &Settings,
    model: &ValidModel,
    assessment: &Assessment,
    decision: &Decision,
    snapshot: &Snapshot,
) -> Result<Option<Job>, Error> {
    match (&decision.step, &assessment.target) {
        (Step::Inspect, _) => Ok(Some(inspect_job::build(
            settings,
            model,
            &assessment.inspect_inputs,
        ))),
        (Step::Fetch, Some(target)) if snapshot.fetch_job(&target.artifact).is_none() => {
            Ok(Some(fetch_job::build(settings, model, target)))
        }
        _ => Ok(None),
    }
}

/// Steps from which on the target's Deployment is kept as rendered.
fn runs_target(step: &Step) -> bool {
    match step {
        Step::Start
        | Step::WaitReady
        | Step::StopOld
        | Step::Flip { .. }
        | Step::SettleEndpoints
        | Step::DrainOld
        | Step::Prune { .. }
        | Step::Serving => true,
        Step::Deleting
        | Step::Refused
        | Step::Suspended
        | Step::Inspect
        | Step::WaitInspect
        | Step::RetryJob { .. }
        | Step::Adopt { .. }
        | Step::Abandon { .. }
        | Step::Fetch
        | Step::WaitFetch
        | Step::MarkVerified
        | Step::Free
        | Step::GiveUp { .. }
        | Step::RolledBack => false,
    }
}

fn scales(
    model: &ValidModel,
    target: Option<&Target>,
    decision: &Decision,
    snapshot: &Snapshot,
) -> Vec<Scale> {
    let scale = |deployment: &str, replicas, stopped_at| Scale {
        deployment: deployment.to_owned(),
        replicas,
        stopped_at,
        dark_at: None,
        emptied_at: None,
        inputs: None,
    };
    if decision.step == Step::Suspended {
        // What was stopped for room no longer counts as an outage: it is one that was asked for.
        let running = snapshot.workloads.iter().filter(|workload| {
            (workload.replicas != 0 || workload.stopped_at.is_some()) && !workload.deleting
        });
        return running
            .map(|workload| scale(&workload.name, 0, None))
            .collect();
    }
    let rendered = runs_target(&decision.step);
    let mut scales = Vec::new();
    if let Some(target) = target.filter(|_| rendered)
        && let Some(running) = snapshot.workload(&target.workload)
        && !running.deleting
    {
        // A Deployment that is kept as it is is not applied: what changes on it is written here.
        let kept = target.template.is_none()
            && (running.replicas != model.replicas || running.inputs.is_none());
        // Written by a merge patch, which an apply does not take back: left on, it would date a later outage.
        if kept || running.stopped_at.is_some() {
            scales.push(Scale {
                inputs: target.template.is_none().then(|| target.inputs.clone()),
                ..scale(&running.name, model.replicas, None)
            });
        }
    }
    let other = snapshot.active().filter(|active| {
        let is_target = target.is_some_and(|target| target.workload == active.id);
        !(active.deleting || rendered && is_target)
    });
    let Some(active) = other else {
        return scales;
    };
    let wanted = match decision.step {
        Step::StopOld | Step::Free => 0,
        // The refusal is about the replicas.
        _ if decision.reason == Reason::StorageUnchangeable => active.replicas.max(1),
        // Its weights are gone.
        _ if weights_gone(snapshot, active) => 0,
        // Stopped to make room: it stays so while its successor can start.
        _ if rendered && active.replicas == 0 => 0,
        _ => model.replicas,
    };
    if active.replicas != wanted {
        let stops = matches!(decision.step, Step::StopOld | Step::Free);
        let stopped_at = stops.then_some(snapshot.now);
        scales.push(scale(&active.name, wanted, stopped_at));
    } else if active.replicas == 0 && active.stopped_at.is_some() {
        let ended = |is: bool, noted: Option<Timestamp>| noted.or(is.then_some(snapshot.now));
        let dark_at = ended(!active.pods.iter().any(|pod| pod.ready), active.dark_at);
        let emptied_at = ended(active.pods.is_empty(), active.emptied_at);
        if (dark_at, emptied_at) != (active.dark_at, active.emptied_at) {
            scales.push(Scale {
                dark_at,
                emptied_at,
                ..scale(&active.name, 0, active.stopped_at)
            });
        }
    }
    scales
}

fn suspensions(model: &ValidModel, snapshot: &Snapshot) -> Vec<Suspension> {
    let running = snapshot
        .jobs
        .iter()
        .filter(|job| job.phase == JobPhase::Active && !job.deleting);
    running
        .filter(|job| job.suspended != model.suspend)
        .map(|job| Suspension {
            job: job.name.clone(),
            suspend: model.suspend,
        })
        .collect()
}

/// Budgets and policies that the spec no longer asks for.
fn unguarded(resources: &Resources<Prepared>, snapshot: &Snapshot) -> Vec<Deletion> {
    let budgets = resources.budgets.iter().map(|budget| &budget.metadata);
    let policies = resources.policies.iter().map(|policy| &policy.metadata);
    let wanted: Vec<(DeletedKind, Option<&str>)> = budgets
        .map(|meta| (DeletedKind::Budget, meta.name.as_deref()))
        .chain(policies.map(|meta| (DeletedKind::Policy, meta.name.as_deref())))
        .collect();
    let stale = snapshot
        .guards
        .iter()
        .filter(|guard| !wanted.contains(&(guard.kind, Some(guard.name.as_str()))));
    stale.cloned().collect()
}

/// What no longer leads anywhere: Jobs of other sources and artifacts, Deployments that are neither target nor active.
fn deletions(
    model: &ValidModel,
    target: Option<&Target>,
    decision: &Decision,
    snapshot: &Snapshot,
) -> Vec<Deletion> {
    let checked = snapshot.given().is_some_and(|claim| {
        claim.holder == Holder::Us && claim.verified.is_some() && claim.source == model.source.id
    });
    let current = |kind: &JobKind| match (kind, target) {
        // A pod that has ended still holds on to its volume, and a given one is not ours to hold.
        (JobKind::Inspect { source }, _) if model.source.volume.is_some() => {
            *source == model.source.id && !checked
        }
        (JobKind::Inspect { source }, _) => *source == model.source.id,
        (JobKind::Fetch { artifact }, Some(target)) => *artifact == target.artifact,
        (JobKind::Fetch { .. }, None) => true,
    };
    let retried =
        |name: &str| matches!(&decision.step, Step::RetryJob { name: retried } if retried == name);
    let jobs = snapshot
        .jobs
        .iter()
        .filter(|job| !job.deleting && (!current(&job.kind) || retried(&job.name)));
    let mut deletions: Vec<Deletion> = jobs
        .map(|job| Deletion {
            kind: DeletedKind::Job,
            name: job.name.clone(),
            uid: job.uid.clone(),
        })
        .collect();
    if let Step::Prune { claim, uid } | Step::Abandon { claim, uid } = &decision.step {
        deletions.push(Deletion {
            kind: DeletedKind::Claim,
            name: claim.clone(),
            uid: uid.clone(),
        });
    }
    if decision.step == Step::Free {
        deletions.extend(freed(snapshot));
    }
    let active = snapshot.active().map(|active| active.id.as_str());
    let drains = decision.step == Step::DrainOld;
    // Where a server is selected, one that was started for an earlier spec must not keep the room that it may need.
    let given_up = active.is_some()
        && matches!(
            decision.step,
            Step::GiveUp { .. } | Step::RolledBack | Step::Refused
        );
    let wanted = target.map(|target| target.workload.as_str());
    let stale = snapshot.workloads.iter().filter(|workload| {
        let id = Some(workload.id.as_str());
        let serves = id == active && !drains;
        let comes = match wanted {
            Some(_) => id == wanted && !given_up,
            None => active.is_none(),
        };
        !serves && !comes
    });
    deletions.extend(stale.filter_map(delete));
    deletions
}

/// Whether a server could not start again: no pod holds its volume, and that is gone, goes, or is not whole.
fn weights_gone(snapshot: &Snapshot, workload: &Workload) -> bool {
    let claim = snapshot.claim(&workload.artifact);
    let partial = claim.is_some_and(|claim| claim.verified.is_none());
    let gone = partial || !snapshot.keeps_weights_of(workload);
    gone && !workload.holds_its_volume()
}

/// The weights of a server that was stopped to make room for others, once the last stream has ended: until then an edit
/// back loses nothing.
fn freed(snapshot: &Snapshot) -> Option<Deletion> {
    let old = snapshot.active().filter(|old| old.replicas == 0)?;
    let claim = snapshot
        .claim(&old.artifact)
        .filter(|claim| !claim.deleting && !claim.mounted)?;
    Some(Deletion {
        kind: DeletedKind::Claim,
        name: claim.name.clone(),
        uid: claim.uid.clone(),
    })
}

/// Metadata of an object of one part of a model, owned by the KimiModel.
fn metadata(model: &ValidModel, name: String, component: Component) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(model.namespace.clone()),
        labels: Some(names::component_labels(&model.name, component)),
        owner_references: Some(vec![owner(model)]),
        ..ObjectMeta::default()
    }
}

/// `blockOwnerDeletion` stays unset: setting it needs a right on finalizers where OwnerReferencesPermissionEnforcement
/// is on, as on OpenShift.
fn owner(model: &ValidModel) -> OwnerReference {
    OwnerReference {
        api_version: format!("{}/{}", spec::GROUP, spec::VERSION),
        kind: spec::KIND.to_owned(),
        name: model.name.clone(),
        uid: model.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

fn json<T: serde::Serialize>(what: &'static str, value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|source| Error { what, source })
}
