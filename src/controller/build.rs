//! Decision → [`Resources<Prepared>`]: the objects a step wants, and nothing else. It must know no client; everything it
//! returns is data that apply writes as it stands.

use std::marker::PhantomData;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Service};

/// What the operator's own flags say about every pod it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Image with the `kimi` command.
    pub worker_image: String,
    pub image_pull_policy: String,
    /// `None` where the platform assigns one (OpenShift).
    pub run_as_user: Option<i64>,
    pub fs_group: Option<i64>,
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
    /// Made when absent. A Job's template is immutable: an existing one is never applied again.
    pub jobs: Vec<Job>,
    /// Applied.
    pub deployments: Vec<Deployment>,
    /// Deployments that are not the target: replicas (and the stopped-at annotation) change, nothing else.
    pub scales: Vec<Scale>,
    /// Applied.
    pub services: Vec<Service>,
    /// `spec.suspend` of existing Jobs.
    pub suspensions: Vec<Suspension>,
    /// Deleted, in the background, if the UID still matches.
    pub deletions: Vec<Deletion>,
    pub stage: PhantomData<Stage>,
}

/// A change of replicas of an existing Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub deployment: String,
    pub replicas: i32,
    /// Set with replicas 0 on the one-slot path; `None` removes the annotation.
    pub stopped_at: Option<Timestamp>,
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

/// Kinds that the operator deletes; never a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletedKind {
    Job,
    Deployment,
}

impl<Stage> Default for Resources<Stage> {
    fn default() -> Self {
        Self {
            claims: Vec::new(),
            jobs: Vec::new(),
            deployments: Vec::new(),
            scales: Vec::new(),
            services: Vec::new(),
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
            jobs,
            deployments,
            scales,
            services,
            suspensions,
            deletions,
            stage: _,
        } = self;
        Resources {
            claims,
            jobs,
            deployments,
            scales,
            services,
            suspensions,
            deletions,
            stage: PhantomData,
        }
    }
}
