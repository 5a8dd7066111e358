//! A cluster in memory, small enough to read: it holds real Kubernetes objects, takes built resources the way apply
//! writes them, and moves Jobs, pods and endpoints on by one tick at a time. It must know no decision.

mod kubelet;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use sizing::Facts;

use super::objects::{is_bound, keep_identity, label, merged, node, storage};
use super::{epoch, settings};
use crate::controller::Settings;
use crate::controller::assess::assess;
use crate::controller::build::ownership::Ownership;
use crate::controller::build::{DeletedKind, Prepared, Resources, Scale, build};
use crate::controller::observe::{Live, snapshot};
use crate::controller::plan::{Decision, Step, plan};
use crate::crd::KimiModel;
use crate::names;
use crate::snapshot::{ConfigValue, Snapshot};

/// The cluster, the hub it can reach, and what the tests watch.
pub(crate) struct Cluster {
    pub(crate) model: KimiModel,
    /// The operator's own flags: another image is an upgrade.
    pub(crate) settings: Settings,
    pub(crate) now: Timestamp,
    pub(crate) nodes: Vec<(String, u64)>,
    /// Facts by quant: the repository's contents.
    pub(crate) hub: BTreeMap<String, Facts>,
    /// The volume that `spec.source.pvc` names.
    pub(crate) given: Option<PersistentVolumeClaim>,
    /// Other KimiModels, by UID.
    pub(crate) models: BTreeMap<String, String>,
    /// What stands where `spec.quantFrom` points to.
    pub(crate) config: ConfigValue,
    /// Fetch pods that will still fail for want of the hub.
    pub(crate) outages: u32,
    /// Bytes that a volume must have for a fetch to find room, and whether a volume can be grown.
    pub(crate) room: u64,
    /// Bytes of the disk behind all volumes.
    pub(crate) disk: u64,
    /// The GPU product of every Node, which then advertises one.
    pub(crate) product: Option<&'static str>,
    pub(crate) expandable: bool,
    /// Quants whose server ends with an error instead of becoming ready, and the exit code of that.
    pub(crate) broken: BTreeSet<String>,
    pub(crate) exit_code: i32,
    /// True while servers load for ever.
    pub(crate) stuck: bool,
    pub(crate) jobs: BTreeMap<String, Job>,
    pub(crate) claims: BTreeMap<String, PersistentVolumeClaim>,
    pub(crate) deployments: BTreeMap<String, Deployment>,
    pub(crate) service: Option<Service>,
    pods: BTreeMap<String, Pod>,
    /// Ticks of work done, by pod, and bytes on volumes as ticks, by UID of the claim.
    work: BTreeMap<String, u32>,
    filled: BTreeMap<String, u32>,
    serial: u32,
    /// Ticks of download over all volumes: what refetching would raise.
    pub(crate) fetched: u32,
    /// Writes made, and the one before which the operator dies.
    pub(crate) writes: u32,
    pub(crate) dies_before: Option<u32>,
    /// Ticks without a ready endpoint since there first was one.
    pub(crate) dark: u32,
    lit: bool,
    pub(crate) steps: Vec<String>,
}

impl Cluster {
    pub(crate) fn new(model: KimiModel, hub: &[&str]) -> Self {
        Self {
            model,
            settings: settings(),
            now: epoch(),
            nodes: vec![("n1".to_owned(), 32 << 30)],
            hub: hub
                .iter()
                .map(|quant| ((*quant).to_owned(), super::facts(quant)))
                .collect(),
            given: None,
            models: BTreeMap::new(),
            config: ConfigValue::NoConfigMap,
            outages: 0,
            room: 0,
            disk: u64::MAX,
            product: None,
            expandable: true,
            broken: BTreeSet::new(),
            exit_code: 1,
            stuck: false,
            jobs: BTreeMap::new(),
            claims: BTreeMap::new(),
            deployments: BTreeMap::new(),
            service: None,
            pods: BTreeMap::new(),
            work: BTreeMap::new(),
            filled: BTreeMap::new(),
            serial: 0,
            fetched: 0,
            writes: 0,
            dies_before: None,
            dark: 0,
            lit: false,
            steps: Vec::new(),
        }
    }

    /// Changes the spec as a user would.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut spec::KimiModelSpec)) {
        change(&mut self.model.spec.0);
        self.model.metadata.generation = self
            .model
            .metadata
            .generation
            .map(|generation| generation + 1);
    }

    /// Every pod is gone at once, as with its Node.
    pub(crate) fn lose_pods(&mut self) {
        self.pods.clear();
    }

    /// What the spec does not name is not looked at.
    fn names_given(&self) -> bool {
        let source = self.model.spec.source.as_ref();
        source.is_some_and(|source| source.pvc.is_some())
    }

    fn gpus(&self) -> u64 {
        u64::from(self.product.is_some())
    }

    pub(crate) fn see(&self) -> Snapshot {
        let live = Live {
            jobs: self.jobs.values().cloned().map(Arc::new).collect(),
            pods: self.pods.values().cloned().map(Arc::new).collect(),
            claims: self.claims.values().cloned().map(Arc::new).collect(),
            deployments: self.deployments.values().cloned().map(Arc::new).collect(),
            service: self.service.clone().map(Arc::new),
            events: Vec::new(),
            budgets: Vec::new(),
            policies: Vec::new(),
            slices: self.slice().map(Arc::new).into_iter().collect(),
            nodes: self
                .nodes
                .iter()
                .map(|(name, memory)| Arc::new(node(name, *memory, self.product)))
                .collect(),
            given: self
                .given
                .clone()
                .filter(|_| self.names_given())
                .map(Arc::new),
            models: self.models.clone(),
        };
        let mut seen = snapshot(&self.model, &live, self.now);
        let points = self.model.spec.quant_from.is_some();
        seen.quant_from = points.then(|| self.config.clone());
        seen
    }

    /// One reconcile: sees, decides, writes. A death in between leaves the rest unwritten.
    pub(crate) fn reconcile(&mut self) -> Decision {
        let seen = self.see();
        let assessment = assess(&self.settings, &seen).unwrap();
        let decision = plan(&assessment, &seen);
        let resources = build(&self.settings, &assessment, &decision, &seen).unwrap();
        let step = format!("{:?}", decision.step)
            .split([' ', '{'])
            .next()
            .unwrap_or_default()
            .to_owned();
        if self.steps.last() != Some(&step) {
            self.steps.push(step);
        }
        // A death shows in what was not written, nowhere else.
        let _ = self.write(resources);
        decision
    }

    /// Reconciles and ticks until the decision is final (serving, suspended or refused) or the ticks are used up.
    pub(crate) fn settle(&mut self, ticks: u32) -> Decision {
        let mut decision = self.reconcile();
        for _ in 0..ticks {
            self.tick();
            decision = self.reconcile();
            let quiet = self
                .pods
                .values()
                .all(|pod| pod.metadata.deletion_timestamp.is_none());
            if matches!(
                decision.step,
                Step::Serving | Step::Suspended | Step::Refused
            ) && quiet
            {
                return decision;
            }
        }
        decision
    }

    /// Everything that a fresh apply should lead to as well, without times, UIDs and history.
    pub(crate) fn essence(&self) -> String {
        let selector = self
            .service
            .as_ref()
            .and_then(|service| service.spec.clone())
            .and_then(|spec| spec.selector);
        let deployments: Vec<_> = self
            .deployments
            .values()
            .map(|d| {
                (
                    d.metadata.name.clone(),
                    d.spec.as_ref().and_then(|spec| spec.replicas),
                )
            })
            .collect();
        let active = self.see().active().map(|active| active.artifact.clone());
        let verified: Vec<_> = self
            .claims
            .values()
            .filter(|claim| label(&claim.metadata, names::LABEL_ARTIFACT) == active.as_deref())
            .map(|claim| {
                let mut annotations = claim.metadata.annotations.clone();
                annotations
                    .as_mut()
                    .map(|all| all.remove(names::ANNOTATION_SERVED));
                (claim.metadata.name.clone(), annotations)
            })
            .collect();
        let ready = self
            .see()
            .active()
            .map_or(0, crate::snapshot::Workload::ready_pods);
        format!("{selector:?} {deployments:?} {verified:?} ready={ready}")
    }

    fn may_write(&mut self) -> Option<()> {
        if self.dies_before.is_some_and(|at| self.writes >= at) {
            return None;
        }
        self.writes += 1;
        Some(())
    }

    /// In the order of apply. Only changes count as writes; `None` is the operator's death.
    fn write(&mut self, resources: Resources<Prepared>) -> Option<()> {
        let Resources {
            claims,
            ownerships,
            jobs,
            deployments,
            scales,
            services,
            budgets: _,
            policies: _,
            suspensions,
            deletions,
            stage: _,
        } = resources;
        claims
            .into_iter()
            .try_for_each(|claim| self.write_claim(claim))?;
        ownerships
            .iter()
            .try_for_each(|ownership| self.write_ownership(ownership))?;
        jobs.into_iter().try_for_each(|job| self.write_job(job))?;
        deployments
            .into_iter()
            .try_for_each(|deployment| self.write_deployment(deployment))?;
        scales
            .into_iter()
            .try_for_each(|scale| self.write_scale(&scale))?;
        services
            .into_iter()
            .try_for_each(|service| self.write_service(service))?;
        for suspension in suspensions {
            self.may_write()?;
            self.jobs
                .get_mut(&suspension.job)
                .unwrap()
                .spec
                .as_mut()
                .unwrap()
                .suspend = Some(suspension.suspend);
        }
        for deletion in deletions {
            self.may_write()?;
            match deletion.kind {
                DeletedKind::Job => {
                    let job = self.jobs.get_mut(&deletion.name).unwrap();
                    job.metadata.deletion_timestamp = Some(Time(self.now));
                }
                DeletedKind::Deployment => {
                    self.deployments.remove(&deletion.name);
                }
                DeletedKind::Claim => self.delete_claim(&deletion.name),
                DeletedKind::Budget | DeletedKind::Policy => {}
            }
        }
        Some(())
    }

    fn write_ownership(&mut self, ownership: &Ownership) -> Option<()> {
        let given = self
            .given
            .as_ref()
            .filter(|given| given.metadata.name.as_ref() == Some(&ownership.claim));
        let live = given.or_else(|| self.claims.get(&ownership.claim)).unwrap();
        let patched = merged(live, &ownership.patch(live));
        if *live == patched {
            return Some(());
        }
        let is_given = given.is_some();
        self.may_write()?;
        if is_given {
            self.given = Some(patched);
        } else {
            self.claims.insert(ownership.claim.clone(), patched);
        }
        Some(())
    }

    fn delete_claim(&mut self, name: &str) {
        let claim = self.claims.remove(name).unwrap();
        let artifact = label(&claim.metadata, names::LABEL_ARTIFACT);
        let mounts = |pod: &Pod| label(&pod.metadata, names::LABEL_ARTIFACT) == artifact;
        assert!(!self.pods.values().any(mounts), "a pod mounts {name}");
    }

    fn write_claim(&mut self, mut claim: PersistentVolumeClaim) -> Option<()> {
        let name = claim.metadata.name.clone().unwrap();
        let live = self.claims.get(&name).cloned();
        let meta = live.as_ref().map(|live| &live.metadata);
        keep_identity(&mut claim.metadata, meta, self.now, &mut self.serial);
        claim.status = live.as_ref().and_then(|live| live.status.clone());
        // What a merge patch wrote is not an apply's to remove.
        claim.metadata.owner_references = meta.and_then(|meta| meta.owner_references.clone());
        if let Some(live) = live.as_ref().filter(|live| live.spec != claim.spec) {
            let mut grown = live.clone();
            let spec = grown.spec.as_mut().unwrap();
            spec.resources = claim.spec.as_ref().unwrap().resources.clone();
            assert_eq!(grown.spec, claim.spec, "the rest of a claim is immutable");
            assert!(is_bound(live), "only a bound claim can grow");
            assert!(storage(&claim) > storage(live), "a claim never shrinks");
            if !self.expandable {
                return None;
            }
        }
        if live.as_ref() != Some(&claim) {
            self.may_write()?;
            self.claims.insert(name, claim);
        }
        Some(())
    }

    fn write_job(&mut self, mut job: Job) -> Option<()> {
        let name = job.metadata.name.clone().unwrap();
        if self.jobs.contains_key(&name) {
            return Some(());
        }
        self.may_write()?;
        keep_identity(&mut job.metadata, None, self.now, &mut self.serial);
        self.jobs.insert(name, job);
        Some(())
    }

    fn write_deployment(&mut self, mut deployment: Deployment) -> Option<()> {
        let name = deployment.metadata.name.clone().unwrap();
        let live = self.deployments.get(&name).cloned();
        let meta = live.as_ref().map(|live| &live.metadata);
        keep_identity(&mut deployment.metadata, meta, self.now, &mut self.serial);
        if let (Some(live), Some(new)) = (
            live.as_ref().and_then(|live| live.spec.as_ref()),
            &deployment.spec,
        ) {
            assert_eq!(
                live.template, new.template,
                "a template under one name never changes"
            );
        }
        // What a merge patch wrote is not an apply's to remove.
        for key in [
            names::ANNOTATION_STOPPED_AT,
            names::ANNOTATION_DARK_AT,
            names::ANNOTATION_EMPTIED_AT,
        ] {
            let written = meta
                .and_then(|meta| meta.annotations.as_ref())
                .and_then(|all| all.get(key));
            if let Some(at) = written {
                let annotations = deployment.metadata.annotations.get_or_insert_default();
                annotations.insert(key.to_owned(), at.clone());
            }
        }
        if live.as_ref() != Some(&deployment) {
            self.may_write()?;
            self.deployments.insert(name, deployment);
        }
        Some(())
    }

    fn write_scale(&mut self, scale: &Scale) -> Option<()> {
        self.may_write()?;
        let deployment = self.deployments.get_mut(&scale.deployment).unwrap();
        deployment.spec.as_mut().unwrap().replicas = Some(scale.replicas);
        let annotations = deployment.metadata.annotations.get_or_insert_default();
        for (key, at) in [
            (names::ANNOTATION_STOPPED_AT, scale.stopped_at),
            (names::ANNOTATION_DARK_AT, scale.dark_at),
            (names::ANNOTATION_EMPTIED_AT, scale.emptied_at),
        ] {
            match at {
                Some(at) => annotations.insert(key.to_owned(), at.to_string()),
                None => annotations.remove(key),
            };
        }
        if let Some(inputs) = &scale.inputs {
            annotations.insert(names::ANNOTATION_INPUTS.to_owned(), inputs.clone());
        }
        Some(())
    }

    fn write_service(&mut self, mut service: Service) -> Option<()> {
        let meta = self.service.as_ref().map(|live| &live.metadata);
        keep_identity(&mut service.metadata, meta, self.now, &mut self.serial);
        if self.service.as_ref() != Some(&service) {
            self.may_write()?;
            self.service = Some(service);
        }
        Some(())
    }
}
