//! The half of the cluster in memory that is Kubernetes: Jobs, pods, volumes and endpoints, moved on by one tick at a
//! time. It must know nothing of the operator's reasons.

use k8s_openapi::api::batch::v1::{JobCondition, JobStatus};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodSpec, PodStatus};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};

use super::super::objects::{
    argument, bind, end, gpus, is_ready, owner, phase, refuse, request, restart, run,
    set_condition, storage,
};
use super::*;

/// Seconds of one tick.
const TICK: i64 = 5;
/// Ticks that a fetch, a load, and a drain take.
const FETCH: u32 = 4;
const LOAD: u32 = 2;
const DRAIN: u32 = 1;

impl Cluster {
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
        let outcome = if ["inspect", "verify"].contains(&container.name.as_str()) {
            Some(self.inspect(&container.args))
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
    /// Every repository has the hub's quants, each in bytes of its own.
    fn inspect(&self, args: &Option<Vec<String>>) -> (i32, serde_json::Value) {
        let quant = &argument(args, "--quant");
        match self.hub.get(quant).cloned() {
            Some(mut facts) => {
                let repo = argument(args, "--repo");
                if !repo.is_empty() {
                    facts.repo = repo;
                }
                let (revision, path) = (argument(args, "--revision"), argument(args, "--path"));
                if !["", spec::DEFAULT_REVISION].contains(&revision.as_str()) {
                    facts.commit = names::short_hash(&revision).repeat(4);
                }
                if !path.is_empty() {
                    facts.path = path;
                }
                (0, json!({ "facts": facts }))
            }
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
        let own = names::claim("reader", artifact);
        let claim = self
            .claims
            .get_mut(&own)
            .expect("a fetch pod needs its claim");
        bind(claim);
        let wanted = storage(claim);
        let uid = claim.metadata.uid.clone().unwrap();
        if wanted < self.room {
            return Some((
                1,
                json!({"error": {"reason": "DiskFull", "message": "enlarge the volume (storage.headroom)"}}),
            ));
        }
        let others = self
            .claims
            .iter()
            .filter(|(name, claim)| **name != own && is_bound(claim));
        if others.map(|(_, claim)| storage(claim)).sum::<u64>() + wanted > self.disk {
            return Some((
                1,
                json!({"error": {"reason": "DiskFull", "message": "/models has 7 bytes free and 9000000 more are needed"}}),
            ));
        }
        let filled = self.filled.entry(uid).or_default();
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
        let running = self.pods.values().filter(|pod| phase(pod) == "Running");
        let gpu_room = running.map(gpus).sum::<u64>() + gpus(&self.pods[pod_name]) <= self.gpus();
        let memory_room = self
            .nodes
            .iter()
            .any(|(_, memory)| used + wanted <= *memory);
        let pod = self.pods.get_mut(pod_name).unwrap();
        if phase(pod) == "Pending" {
            match (memory_room, gpu_room) {
                (true, true) => run(pod, "n1", now),
                (true, false) => refuse(pod, "Insufficient nvidia.com/gpu", now),
                (false, _) => refuse(pod, "Insufficient memory", now),
            }
            return;
        }
        let done = self.work.entry(pod_name.clone()).or_default();
        *done += 1;
        if broken && done.is_multiple_of(LOAD) {
            let message =
                json!({"error": {"reason": "LoadFailed", "message": "tensor blk.0 is not finite"}});
            end(pod, self.exit_code, message.to_string(), now);
        } else if broken {
            restart(pod, now);
        } else if *done >= LOAD && !self.stuck {
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

    pub(super) fn slice(&self) -> Option<EndpointSlice> {
        let selector = self.service.as_ref()?.spec.as_ref()?.selector.clone()?;
        let selected = |pod: &&Pod| {
            selector
                .iter()
                .all(|(key, value)| label(&pod.metadata, key) == Some(value))
                && is_ready(pod)
        };
        let terminates = |pod: &Pod| pod.metadata.deletion_timestamp.is_some();
        let endpoints = self.pods.values().filter(selected).map(|pod| Endpoint {
            conditions: Some(EndpointConditions {
                ready: Some(!terminates(pod)),
                serving: Some(true),
                terminating: Some(terminates(pod)),
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
