//! A cluster in memory, small enough to read: it holds real Kubernetes objects, takes built resources the way apply
//! writes them, and moves Jobs, pods and endpoints on by one tick at a time. It must know no decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolumeClaim, Pod, PodSpec, PodStatus, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde_json::json;
use sizing::Facts;

use super::objects::{
    argument, bind, end, is_bound, is_ready, keep_identity, label, merged, node, owner, phase,
    refuse, request, run, set_condition, storage,
};
use super::{epoch, settings};
use crate::controller::assess::assess;
use crate::controller::build::ownership::Ownership;
use crate::controller::build::{DeletedKind, Prepared, Resources, Scale, build};
use crate::controller::observe::{Live, snapshot};
use crate::controller::plan::{Decision, Step, plan};
use crate::crd::KimiModel;
use crate::names;
use crate::snapshot::{ConfigValue, Snapshot};

/// Seconds of one tick.
const TICK: i64 = 5;
/// Ticks that a fetch, a load, and a drain take.
const FETCH: u32 = 4;
const LOAD: u32 = 2;
const DRAIN: u32 = 1;

/// The cluster, the hub it can reach, and what the tests watch.
pub(crate) struct Cluster {
    pub(crate) model: KimiModel,
    pub(crate) now: Timestamp,
    pub(crate) nodes: Vec<(String, u64)>,
    /// Facts by quant: the repository's contents.
    pub(crate) hub: BTreeMap<String, Facts>,
    /// Other KimiModels, by UID.
    pub(crate) models: BTreeMap<String, String>,
    /// What stands where `spec.quantFrom` points to.
    pub(crate) config: ConfigValue,
    /// Fetch pods that will still fail for want of the hub.
    pub(crate) outages: u32,
    /// Bytes that a volume must have for a fetch to find room, and whether a volume can be grown.
    pub(crate) room: u64,
    pub(crate) expandable: bool,
    /// Quants whose server ends with an error instead of becoming ready.
    pub(crate) broken: BTreeSet<String>,
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
            now: epoch(),
            nodes: vec![("n1".to_owned(), 32 << 30)],
            hub: hub
                .iter()
                .map(|quant| ((*quant).to_owned(), super::facts(quant)))
                .collect(),
            models: BTreeMap::new(),
            config: ConfigValue::NoConfigMap,
            outages: 0,
            room: 0,
            expandable: true,
            broken: BTreeSet::new(),
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

    pub(crate) fn see(&self) -> Snapshot {
        let live = Live {
            jobs: self.jobs.values().cloned().map(Arc::new).collect(),
            pods: self.pods.values().cloned().map(Arc::new).collect(),
            claims: self.claims.values().cloned().map(Arc::new).collect(),
            deployments: self.deployments.values().cloned().map(Arc::new).collect(),
            service: self.service.clone().map(Arc::new),
            slices: self.slice().map(Arc::new).into_iter().collect(),
            nodes: self
                .nodes
                .iter()
                .map(|(name, memory)| Arc::new(node(name, *memory)))
                .collect(),
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
        let assessment = assess(&settings(), &seen).unwrap();
        let decision = plan(&assessment, &seen);
        let resources = build(&settings(), &assessment, &decision, &seen).unwrap();
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
            }
        }
        Some(())
    }

    fn write_ownership(&mut self, ownership: &Ownership) -> Option<()> {
        let live = self.claims.get(&ownership.claim).unwrap();
        let patched = merged(live, &ownership.patch(live));
        if *live != patched {
            self.may_write()?;
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
        let stopped_at = meta
            .and_then(|meta| meta.annotations.as_ref())
            .and_then(|all| all.get(names::ANNOTATION_STOPPED_AT));
        if let Some(at) = stopped_at {
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            annotations.insert(names::ANNOTATION_STOPPED_AT.to_owned(), at.clone());
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
        match scale.stopped_at {
            Some(at) => annotations.insert(names::ANNOTATION_STOPPED_AT.to_owned(), at.to_string()),
            None => annotations.remove(names::ANNOTATION_STOPPED_AT),
        };
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

    /// Five seconds of everything that is not the operator.
    pub(crate) fn tick(&mut self) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(TICK))
            .unwrap();
        self.end_pods();
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            self.run_job(&name);
        }
        for name in self.deployments.keys().cloned().collect::<Vec<_>>() {
            self.run_deployment(&name);
        }
        let ready = self.slice().map_or(0, |slice| slice.endpoints.len());
        self.lit |= ready > 0;
        if self.lit && ready == 0 {
            self.dark += 1;
        }
    }

    /// Pods whose owner is gone or going end after a drain.
    fn end_pods(&mut self) {
        let owners: BTreeSet<String> = self
            .jobs
            .values()
            .filter(|job| {
                job.metadata.deletion_timestamp.is_none()
                    && job.spec.as_ref().unwrap().suspend != Some(true)
            })
            .filter_map(|job| job.metadata.uid.clone())
            .chain(
                self.deployments
                    .values()
                    .filter_map(|d| d.metadata.uid.clone()),
            )
            .collect();
        for name in self.pods.keys().cloned().collect::<Vec<_>>() {
            let pod = self.pods.get_mut(&name).unwrap();
            let owner = pod.metadata.owner_references.as_ref().unwrap()[0]
                .uid
                .clone();
            if !owners.contains(&owner) && pod.metadata.deletion_timestamp.is_none() {
                pod.metadata.deletion_timestamp = Some(Time(self.now));
                self.work.insert(name.clone(), 0);
            }
            if self.pods[&name].metadata.deletion_timestamp.is_some() {
                let drained = self.work.entry(name.clone()).or_default();
                *drained += 1;
                if *drained > DRAIN {
                    self.pods.remove(&name);
                }
            }
        }
        let pods = &self.pods;
        self.jobs.retain(|_, job| {
            let uid = job.metadata.uid.as_deref();
            let has_pods = pods.values().any(|pod| owner(pod) == uid);
            job.metadata.deletion_timestamp.is_none() || has_pods
        });
    }

    fn run_job(&mut self, name: &str) {
        let job = self.jobs[name].clone();
        let spec = job.spec.as_ref().unwrap();
        let ended = job
            .status
            .as_ref()
            .is_some_and(|status| status.conditions.is_some());
        if ended || spec.suspend == Some(true) || job.metadata.deletion_timestamp.is_some() {
            return;
        }
        let uid = job.metadata.uid.clone().unwrap();
        let running = self
            .pods
            .iter()
            .find(|(_, pod)| owner(pod) == Some(&uid) && phase(pod) == "Running");
        let Some(pod_name) = running.map(|(name, _)| name.clone()) else {
            let pod_name = self.new_pod(
                &job.metadata,
                spec.template.metadata.as_ref(),
                spec.template.spec.as_ref(),
            );
            run(self.pods.get_mut(&pod_name).unwrap(), "n1", self.now);
            return;
        };
        let container = spec.template.spec.as_ref().unwrap().containers[0].clone();
        let quant = argument(&container.args, "--quant");
        let outcome = if container.name == "inspect" {
            Some(self.inspect(&quant))
        } else {
            self.fetch(&job.metadata)
        };
        let Some((code, message)) = outcome else {
            return;
        };
        end(
            self.pods.get_mut(&pod_name).unwrap(),
            code,
            message.to_string(),
            self.now,
        );
        let word = match code {
            0 => Some("Complete"),
            2 => Some("Failed"),
            _ => None,
        };
        if let Some(word) = word {
            self.finish(name, word);
        }
    }

    /// Exit code and report of an inspect pod.
    fn inspect(&self, quant: &str) -> (i32, serde_json::Value) {
        match self.hub.get(quant) {
            Some(facts) => (0, json!({ "facts": facts })),
            None => {
                let has: Vec<&str> = self.hub.keys().map(String::as_str).collect();
                let message = format!(
                    "the repository has no quant '{quant}'; it has {}",
                    has.join(", ")
                );
                (
                    2,
                    json!({"error": {"reason": "QuantNotFound", "message": message}}),
                )
            }
        }
    }

    /// One tick of a fetch pod: exit code and report once it ends.
    fn fetch(&mut self, job: &ObjectMeta) -> Option<(i32, serde_json::Value)> {
        let artifact = label(job, names::LABEL_ARTIFACT).unwrap();
        let claim = self
            .claims
            .get_mut(&names::claim("reader", artifact))
            .expect("a fetch pod needs its claim");
        bind(claim);
        if storage(claim) < self.room {
            return Some((
                1,
                json!({"error": {"reason": "DiskFull", "message": "enlarge the volume (storage.headroom)"}}),
            ));
        }
        let filled = self
            .filled
            .entry(claim.metadata.uid.clone().unwrap())
            .or_default();
        if self.outages > 0 {
            self.outages -= 1;
            return Some((
                1,
                json!({"error": {"reason": "HubUnreachable", "message": "the hub does not answer"}}),
            ));
        }
        if *filled < FETCH {
            *filled += 1;
            self.fetched += 1;
            return None;
        }
        Some((0, json!({})))
    }

    fn finish(&mut self, job: &str, word: &str) {
        let status = JobStatus {
            conditions: Some(vec![JobCondition {
                type_: word.to_owned(),
                status: "True".to_owned(),
                last_transition_time: Some(Time(self.now)),
                ..JobCondition::default()
            }]),
            completion_time: (word == "Complete").then_some(Time(self.now)),
            ..JobStatus::default()
        };
        self.jobs.get_mut(job).unwrap().status = Some(status);
    }

    fn run_deployment(&mut self, name: &str) {
        let deployment = self.deployments[name].clone();
        let spec = deployment.spec.as_ref().unwrap();
        let uid = deployment.metadata.uid.clone().unwrap();
        let mine: Vec<String> = self
            .pods
            .iter()
            .filter(|(_, pod)| {
                owner(pod) == Some(&uid) && pod.metadata.deletion_timestamp.is_none()
            })
            .map(|(name, _)| name.clone())
            .collect();
        if spec.replicas == Some(0) {
            for pod in mine {
                self.pods.get_mut(&pod).unwrap().metadata.deletion_timestamp = Some(Time(self.now));
                self.work.insert(pod, 0);
            }
            return;
        }
        let Some(pod_name) = mine.first() else {
            self.new_pod(
                &deployment.metadata,
                spec.template.metadata.as_ref(),
                spec.template.spec.as_ref(),
            );
            return;
        };
        let wanted = request(&self.pods[pod_name]);
        let used: u64 = self
            .pods
            .values()
            .filter(|pod| phase(pod) == "Running")
            .map(request)
            .sum();
        let now = self.now;
        let broken = deployment
            .metadata
            .annotations
            .as_ref()
            .is_some_and(|all| self.broken.contains(&all[names::ANNOTATION_QUANT]));
        let room = self
            .nodes
            .iter()
            .any(|(_, memory)| used + wanted <= *memory);
        let pod = self.pods.get_mut(pod_name).unwrap();
        if phase(pod) == "Pending" {
            if room {
                run(pod, "n1", now);
            } else {
                refuse(pod, now);
            }
            return;
        }
        let done = self.work.entry(pod_name.clone()).or_default();
        *done += 1;
        if broken {
            let message =
                json!({"error": {"reason": "LoadFailed", "message": "tensor blk.0 is not finite"}});
            end(pod, 1, message.to_string(), now);
        } else if *done >= LOAD {
            set_condition(pod, "Ready", "True", None, now);
        }
    }

    fn new_pod(
        &mut self,
        owner: &ObjectMeta,
        meta: Option<&ObjectMeta>,
        spec: Option<&PodSpec>,
    ) -> String {
        self.serial += 1;
        let name = format!("{}-{:04}", owner.name.as_deref().unwrap(), self.serial);
        let pod = Pod {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: owner.namespace.clone(),
                uid: Some(format!("uid-{}", self.serial)),
                labels: meta.and_then(|meta| meta.labels.clone()),
                creation_timestamp: Some(Time(self.now)),
                owner_references: Some(vec![OwnerReference {
                    uid: owner.uid.clone().unwrap(),
                    ..OwnerReference::default()
                }]),
                ..ObjectMeta::default()
            },
            spec: spec.cloned(),
            status: Some(PodStatus {
                phase: Some("Pending".to_owned()),
                ..PodStatus::default()
            }),
        };
        self.pods.insert(name.clone(), pod);
        name
    }

    fn slice(&self) -> Option<EndpointSlice> {
        let selector = self.service.as_ref()?.spec.as_ref()?.selector.clone()?;
        let selected = |pod: &&Pod| {
            selector
                .iter()
                .all(|(key, value)| label(&pod.metadata, key) == Some(value))
                && is_ready(pod)
        };
        let endpoints = self.pods.values().filter(selected).map(|pod| Endpoint {
            conditions: Some(EndpointConditions {
                ready: Some(true),
                ..EndpointConditions::default()
            }),
            target_ref: Some(ObjectReference {
                kind: Some("Pod".to_owned()),
                name: pod.metadata.name.clone(),
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        });
        Some(EndpointSlice {
            endpoints: endpoints.collect(),
            ..EndpointSlice::default()
        })
    }
}
