//! A cluster in memory, small enough to read: it holds real Kubernetes objects, takes built resources the way apply
//! writes them, and moves Jobs, pods and endpoints on by one tick at a time. It must know no decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, Node,
    NodeCondition, NodeSpec, NodeStatus, ObjectReference, PersistentVolumeClaim, Pod, PodCondition,
    PodSpec, PodStatus, Service,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde_json::json;
use sizing::Facts;

use super::{epoch, settings};
use crate::controller::assess::assess;
use crate::controller::build::{DeletedKind, Prepared, Resources, build};
use crate::controller::observe::{Live, snapshot};
use crate::controller::plan::{Decision, Step, plan};
use crate::crd::KimiModel;
use crate::names;
use crate::snapshot::Snapshot;

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
    /// Fetch pods that will still fail for want of the hub.
    pub(crate) outages: u32,
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
            outages: 0,
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
        };
        snapshot(&self.model, &live, self.now)
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
        self.write(resources);
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
                (
                    claim.metadata.name.clone(),
                    claim.metadata.annotations.clone(),
                )
            })
            .collect();
        let ready = self
            .see()
            .active()
            .map_or(0, crate::snapshot::Workload::ready_pods);
        format!("{selector:?} {deployments:?} {verified:?} ready={ready}")
    }

    fn may_write(&mut self) -> bool {
        if self.dies_before.is_some_and(|at| self.writes >= at) {
            return false;
        }
        self.writes += 1;
        true
    }

    /// In the order of apply. Only changes count as writes.
    fn write(&mut self, resources: Resources<Prepared>) {
        let Resources {
            claims,
            jobs,
            deployments,
            scales,
            services,
            suspensions,
            deletions,
            stage: _,
        } = resources;
        let now = Time(self.now);
        for mut claim in claims {
            let name = claim.metadata.name.clone().unwrap();
            let live = self.claims.get(&name).cloned();
            keep_identity(
                &mut claim.metadata,
                live.as_ref().map(|live| &live.metadata),
                &now,
                &mut self.serial,
            );
            claim.status = live.as_ref().and_then(|live| live.status.clone());
            if let Some(live) = &live {
                assert_eq!(live.spec, claim.spec, "the spec of a claim is immutable");
            }
            if live.as_ref() != Some(&claim) {
                if !self.may_write() {
                    return;
                }
                self.claims.insert(name, claim);
            }
        }
        for mut job in jobs {
            let name = job.metadata.name.clone().unwrap();
            if self.jobs.contains_key(&name) {
                continue;
            }
            if !self.may_write() {
                return;
            }
            keep_identity(&mut job.metadata, None, &now, &mut self.serial);
            self.jobs.insert(name, job);
        }
        for mut deployment in deployments {
            let name = deployment.metadata.name.clone().unwrap();
            let live = self.deployments.get(&name).cloned();
            keep_identity(
                &mut deployment.metadata,
                live.as_ref().map(|live| &live.metadata),
                &now,
                &mut self.serial,
            );
            if let (Some(live), Some(new)) = (
                live.as_ref().and_then(|live| live.spec.as_ref()),
                &deployment.spec,
            ) {
                assert_eq!(
                    live.template, new.template,
                    "a template under one name never changes"
                );
            }
            if live.as_ref() != Some(&deployment) {
                if !self.may_write() {
                    return;
                }
                self.deployments.insert(name, deployment);
            }
        }
        for scale in scales {
            if !self.may_write() {
                return;
            }
            let deployment = self.deployments.get_mut(&scale.deployment).unwrap();
            deployment.spec.as_mut().unwrap().replicas = Some(scale.replicas);
            let annotations = deployment.metadata.annotations.get_or_insert_default();
            match scale.stopped_at {
                Some(at) => {
                    annotations.insert(names::ANNOTATION_STOPPED_AT.to_owned(), at.to_string())
                }
                None => annotations.remove(names::ANNOTATION_STOPPED_AT),
            };
        }
        for mut service in services {
            let live = self.service.as_ref();
            keep_identity(
                &mut service.metadata,
                live.map(|live| &live.metadata),
                &now,
                &mut self.serial,
            );
            if self.service.as_ref() != Some(&service) {
                if !self.may_write() {
                    return;
                }
                self.service = Some(service);
            }
        }
        for suspension in suspensions {
            if !self.may_write() {
                return;
            }
            self.jobs
                .get_mut(&suspension.job)
                .unwrap()
                .spec
                .as_mut()
                .unwrap()
                .suspend = Some(suspension.suspend);
        }
        for deletion in deletions {
            if !self.may_write() {
                return;
            }
            match deletion.kind {
                DeletedKind::Job => {
                    let job = self.jobs.get_mut(&deletion.name).unwrap();
                    job.metadata.deletion_timestamp = Some(now.clone());
                }
                DeletedKind::Deployment => {
                    self.deployments.remove(&deletion.name);
                }
            }
        }
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
        let (code, message) = if container.name == "inspect" {
            match self.hub.get(&quant) {
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
        } else {
            let claim = label(&job.metadata, names::LABEL_ARTIFACT).unwrap();
            let claim = self
                .claims
                .get(&names::claim("reader", claim))
                .expect("a fetch pod needs its claim");
            let filled = self
                .filled
                .entry(claim.metadata.uid.clone().unwrap())
                .or_default();
            if self.outages > 0 {
                self.outages -= 1;
                (
                    1,
                    json!({"error": {"reason": "HubUnreachable", "message": "the hub does not answer"}}),
                )
            } else if *filled < FETCH {
                *filled += 1;
                self.fetched += 1;
                return;
            } else {
                (0, json!({}))
            }
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

fn keep_identity(new: &mut ObjectMeta, live: Option<&ObjectMeta>, now: &Time, serial: &mut u32) {
    *serial += u32::from(live.is_none());
    new.uid = live.map_or_else(|| Some(format!("uid-{serial}")), |live| live.uid.clone());
    new.creation_timestamp =
        live.map_or_else(|| Some(now.clone()), |live| live.creation_timestamp.clone());
}

fn node(name: &str, memory: u64) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            allocatable: Some([("memory".to_owned(), Quantity(memory.to_string()))].into()),
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        }),
    }
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn owner(pod: &Pod) -> Option<&str> {
    pod.metadata
        .owner_references
        .as_ref()?
        .first()
        .map(|owner| owner.uid.as_str())
}

fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

/// Memory requested, bytes; only servers count.
fn request(pod: &Pod) -> u64 {
    let server = label(&pod.metadata, names::LABEL_COMPONENT) == Some("server");
    let requests = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers[0].resources.as_ref()?.requests.as_ref());
    let memory = requests.and_then(|requests| spec::parse_quantity(&requests.get("memory")?.0));
    memory.filter(|_| server).unwrap_or(0)
}

fn argument(args: &Option<Vec<String>>, flag: &str) -> String {
    let args = args.as_deref().unwrap_or_default();
    args.iter()
        .skip_while(|arg| *arg != flag)
        .nth(1)
        .cloned()
        .unwrap_or_default()
}

fn run(pod: &mut Pod, node: &str, now: Timestamp) {
    pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
    pod.status.as_mut().unwrap().phase = Some("Running".to_owned());
    set_condition(pod, "PodScheduled", "True", None, now);
    set_state(
        pod,
        ContainerState {
            running: Some(ContainerStateRunning {
                started_at: Some(Time(now)),
            }),
            ..ContainerState::default()
        },
    );
}

fn refuse(pod: &mut Pod, now: Timestamp) {
    let known = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some();
    if !known {
        set_condition(pod, "PodScheduled", "False", Some("Unschedulable"), now);
    }
}

fn end(pod: &mut Pod, code: i32, message: String, now: Timestamp) {
    let server = label(&pod.metadata, names::LABEL_COMPONENT) == Some("server");
    if !server {
        pod.status.as_mut().unwrap().phase =
            Some(if code == 0 { "Succeeded" } else { "Failed" }.to_owned());
    }
    set_state(
        pod,
        ContainerState {
            terminated: Some(ContainerStateTerminated {
                exit_code: code,
                message: Some(message),
                finished_at: Some(Time(now)),
                ..ContainerStateTerminated::default()
            }),
            ..ContainerState::default()
        },
    );
}

fn set_state(pod: &mut Pod, state: ContainerState) {
    pod.status.as_mut().unwrap().container_statuses = Some(vec![ContainerStatus {
        state: Some(state),
        ..ContainerStatus::default()
    }]);
}

fn set_condition(pod: &mut Pod, kind: &str, status: &str, reason: Option<&str>, now: Timestamp) {
    let conditions = pod
        .status
        .as_mut()
        .unwrap()
        .conditions
        .get_or_insert_default();
    let same = conditions
        .iter()
        .any(|c| c.type_ == kind && c.status == status);
    if same {
        return;
    }
    conditions.retain(|condition| condition.type_ != kind);
    conditions.push(PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message: reason.map(|_| "0/1 nodes are available: 1 Insufficient memory.".to_owned()),
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
}
