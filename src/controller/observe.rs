//! All cluster reads → [`Snapshot`]. Objects come from the watches; the one thing asked for is a fetch pod's
//! `/progress`. It must decide nothing, and reads no `.status` of the KimiModel.

pub(crate) mod claim;
mod quant_from;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Container, Event, Node as KubeNode, PersistentVolumeClaim, Pod, Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::Api;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt};

use super::build::deployment as server;
use super::build::{DeletedKind, Deletion};
use super::pods;
use super::progress::Poller;
use super::usage::Meter;
use super::watch::{Guarded, Stores};
use crate::crd::KimiModel;
use crate::names::{self, Component};
use crate::snapshot::{
    JobKind, JobPhase, JobState, ModelMeta, Node, Selected, ServiceState, Snapshot, Workload,
};
use crate::telemetry::Metrics;

/// The live objects of one model, as the watches hold them.
#[derive(Clone, Debug, Default)]
pub struct Live {
    pub jobs: Vec<Arc<Job>>,
    pub pods: Vec<Arc<Pod>>,
    pub claims: Vec<Arc<PersistentVolumeClaim>>,
    pub deployments: Vec<Arc<Deployment>>,
    pub service: Option<Arc<Service>>,
    pub slices: Vec<Arc<EndpointSlice>>,
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    pub policies: Vec<Arc<NetworkPolicy>>,
    pub nodes: Vec<Arc<KubeNode>>,
    /// The volume that `spec.source.pvc` names. It carries no label of ours, so no watch shows it.
    pub given: Option<Arc<PersistentVolumeClaim>>,
    /// Names of the KimiModels of the namespace by their UIDs, where a claim may belong to one of them.
    pub models: BTreeMap<String, String>,
    /// What provisioners said of claims, of any model.
    pub events: Vec<Arc<Event>>,
}

impl Live {
    /// Picks one model's objects out of the watches.
    #[must_use]
    pub fn of(model: &KimiModel, stores: &Stores) -> Self {
        let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
        let service = ObjectRef::new(&name).within(&namespace);
        let claims = select(&stores.claims, &namespace, &name);
        let foreign = |claim: &Arc<PersistentVolumeClaim>| {
            let owner = claim::owner_uid(&claim.metadata);
            owner.is_some_and(|uid| model.metadata.uid.as_deref() != Some(uid))
        };
        let given = model
            .spec
            .source
            .as_ref()
            .is_some_and(|source| source.pvc.is_some());
        let models = if given || claims.iter().any(foreign) {
            models_of(stores, &namespace)
        } else {
            BTreeMap::new()
        };
        Self {
            jobs: select(&stores.jobs, &namespace, &name),
            pods: select(&stores.pods, &namespace, &name),
            claims,
            deployments: select(&stores.deployments, &namespace, &name),
            service: stores
                .services
                .get(&service)
                .filter(|service| belongs(service.as_ref(), &namespace, &name))
                .filter(|service| !is_left_over(&service.metadata, model)),
            slices: select(&stores.slices, &namespace, &name),
            budgets: select(&stores.budgets, &namespace, &name),
            policies: select(&stores.policies, &namespace, &name),
            nodes: stores.nodes.state(),
            given: None,
            models,
            events: stores.events.state(),
        }
    }
}

fn models_of(stores: &Stores, namespace: &str) -> BTreeMap<String, String> {
    let inside = |model: &Guarded| model.meta().namespace.as_deref() == Some(namespace);
    let models = stores.models.state_filter(inside);
    let named = models
        .iter()
        .filter_map(|model| Some((model.uid()?, model.name_any())));
    named.collect()
}

fn select<K>(store: &Store<K>, namespace: &str, instance: &str) -> Vec<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut found = store.state_filter(|object| belongs(object, namespace, instance));
    found.sort_by_key(|object| object.name_any());
    found
}

fn belongs<K: Resource>(object: &K, namespace: &str, instance: &str) -> bool {
    object.meta().namespace.as_deref() == Some(namespace)
        && label(object.meta(), names::LABEL_INSTANCE) == Some(instance)
}

/// True for what a deleted KimiModel of the same name owned: it goes with that one, and its history is that one's.
fn is_left_over(meta: &ObjectMeta, model: &KimiModel) -> bool {
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    let mut models = owners
        .iter()
        .filter(|owner| owner.kind == KimiModel::kind(&()))
        .peekable();
    models.peek().is_some() && models.all(|owner| Some(&owner.uid) != model.metadata.uid.as_ref())
}

/// A question that the API server did not answer.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {kind} {name}: {source}")]
pub struct Error {
    kind: &'static str,
    name: String,
    source: Box<kube::Error>,
}

/// One look at the cluster around `model`; asks a running fetch pod for its progress, and for the ConfigMap and the
/// volume that the spec points to.
///
/// # Errors
/// The ConfigMap or the volume may be there and cannot be read.
pub async fn observe(
    client: &Client,
    model: &KimiModel,
    live: &mut Live,
    poller: &Poller,
    metrics: &Metrics,
) -> Result<Snapshot, Error> {
    live.given = match &model.spec.source {
        Some(spec::Source {
            pvc: Some(volume), ..
        }) => given(client, model, &volume.claim_name).await?,
        _ => None,
    };
    let live = &*live;
    let mut snapshot = snapshot(model, live, Timestamp::now());
    if let Some(from) = &model.spec.quant_from
        && !snapshot.model.deleting
    {
        let key = &from.config_map_key_ref;
        snapshot.quant_from = Some(quant_from::read(client, &snapshot.model.namespace, key).await?);
    }
    for job in &mut snapshot.jobs {
        let reports = matches!(job.kind, JobKind::Fetch { .. }) || live.given.is_some();
        if !reports || job.phase != JobPhase::Active || job.deleting {
            continue;
        }
        let Some((uid, ip)) = live
            .pods
            .iter()
            .filter(|pod| pods::owned_by(pod, &job.uid))
            .find_map(pods::running_at)
        else {
            continue;
        };
        let polled = poller.poll(&uid, &ip).await;
        if polled.failed || polled.new_bytes.is_some() {
            metrics.polled(!polled.failed, polled.new_bytes.unwrap_or(0));
        }
        job.progress = polled.progress;
    }
    Ok(snapshot)
}

/// The volume of this name in the model's namespace.
async fn given(
    client: &Client,
    model: &KimiModel,
    name: &str,
) -> Result<Option<Arc<PersistentVolumeClaim>>, Error> {
    let namespace = model.namespace().unwrap_or_default();
    let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let found = api.get_opt(name).await.map_err(|source| Error {
        kind: "PersistentVolumeClaim",
        name: name.to_owned(),
        source: Box::new(source),
    })?;
    Ok(found.map(Arc::new))
}

/// Asks the server pods that answer what they measured.
pub async fn measure(snapshot: &mut Snapshot, live: &Live, meter: &Meter) {
    let workloads = snapshot.workloads.iter_mut();
    for pod in workloads.flat_map(|workload| &mut workload.pods) {
        let address = live
            .pods
            .iter()
            .find(|live| pod.ready && live.metadata.name.as_ref() == Some(&pod.name))
            .and_then(pods::running_at);
        if let Some((uid, ip)) = address {
            pod.usage = meter.read(&uid, &ip).await;
        }
    }
}

/// Everything of the snapshot that needs no further question.
#[must_use]
pub fn snapshot(model: &KimiModel, live: &Live, now: Timestamp) -> Snapshot {
    let uid = model.uid().unwrap_or_default();
    let service = live.service.as_deref();
    let selected = service.and_then(selected_workload);
    let foreign = ready_targets(live)
        .filter(|pod| workload_of(live, pod.as_deref()) != selected.as_deref())
        .count();
    Snapshot {
        model: ModelMeta {
            name: model.name_any(),
            namespace: model.namespace().unwrap_or_default(),
            uid: uid.clone(),
            generation: model.metadata.generation.unwrap_or_default(),
            created: model.metadata.creation_timestamp.as_ref().map(|at| at.0),
            deleting: model.metadata.deletion_timestamp.is_some(),
            // Hashed: a value of any length and alphabet goes into labels and arguments of ours.
            restart: annotation(&model.metadata, names::ANNOTATION_RESTART).map(names::short_hash),
            refetch: annotation(&model.metadata, names::ANNOTATION_REFETCH).map(names::short_hash),
        },
        spec: model.spec.0.clone(),
        quant_from: None,
        nodes: live.nodes.iter().map(|node| observe_node(node)).collect(),
        jobs: live
            .jobs
            .iter()
            .filter_map(|job| observe_job(job, live, &uid, now))
            .collect(),
        claims: live
            .claims
            .iter()
            .filter(|claim| {
                live.given
                    .as_ref()
                    .is_none_or(|given| given.metadata.name != claim.metadata.name)
            })
            .chain(&live.given)
            .filter_map(|claim| claim::observe(claim, live, &uid, now))
            .collect(),
        workloads: live
            .deployments
            .iter()
            .filter_map(|deployment| observe_workload(deployment, live, now))
            .collect(),
        service: service.map(|service| ServiceState {
            leads_to: parsed(&service.metadata, names::ANNOTATION_SELECTED)
                .filter(|to: &Selected| Some(&to.workload) == selected.as_ref()),
            selected,
            foreign_endpoints: foreign,
            last_switch: parsed(&service.metadata, names::ANNOTATION_SWITCH),
            history: parsed(&service.metadata, names::ANNOTATION_HISTORY).unwrap_or_default(),
            given_up: parsed(&service.metadata, names::ANNOTATION_GIVEN_UP),
        }),
        guards: guards(&live.budgets, DeletedKind::Budget)
            .chain(guards(&live.policies, DeletedKind::Policy))
            .collect(),
        now,
    }
}

fn guards<K>(objects: &[Arc<K>], kind: DeletedKind) -> impl Iterator<Item = Deletion>
where
    K: Resource<DynamicType = ()>,
{
    objects
        .iter()
        .filter(|object| object.meta().deletion_timestamp.is_none())
        .filter_map(move |object| {
            Some(Deletion {
                kind,
                name: object.name_any(),
                uid: object.uid()?,
            })
        })
}

fn observe_node(node: &KubeNode) -> Node {
    let status = node.status.as_ref();
    let allocatable = |resource: &str| {
        let quantity = status?.allocatable.as_ref()?.get(resource)?;
        spec::parse_quantity(&quantity.0)
    };
    let ready = status
        .and_then(|status| status.conditions.as_ref())
        .is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    let cordoned = node
        .spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .unwrap_or(false);
    Node {
        name: node.name_any(),
        labels: node.metadata.labels.clone().unwrap_or_default(),
        memory: allocatable("memory").unwrap_or(0),
        gpus: allocatable(names::GPU_RESOURCE).unwrap_or(0),
        usable: ready && !cordoned,
    }
}

fn observe_job(job: &Job, live: &Live, model_uid: &str, now: Timestamp) -> Option<JobState> {
    let meta = &job.metadata;
    let kind = match label(meta, names::LABEL_COMPONENT)? {
        word if word == Component::Inspect.as_str() => JobKind::Inspect {
            source: label(meta, names::LABEL_SOURCE)?.to_owned(),
        },
        word if word == Component::Fetch.as_str() => JobKind::Fetch {
            artifact: label(meta, names::LABEL_ARTIFACT)?.to_owned(),
        },
        _ => return None,
    };
    let uid = job.uid()?;
    let mut own: Vec<&Pod> = live
        .pods
        .iter()
        .map(AsRef::as_ref)
        .filter(|pod| pods::owned_by(pod, &uid))
        .collect();
    own.sort_by_key(|pod| created(&pod.metadata, now));
    let failure = own.iter().rev().find_map(|pod| pods::failure(pod));
    let facts = match kind {
        JobKind::Inspect { .. } => own.iter().rev().find_map(|pod| pods::facts(pod)),
        JobKind::Fetch { .. } => None,
    };
    let permanent = own.iter().any(|pod| pods::ended_permanently(pod));
    let phase = job_phase(job, permanent, now);
    Some(JobState {
        name: job.name_any(),
        inputs: annotation(meta, names::ANNOTATION_INPUTS)
            .unwrap_or_default()
            .to_owned(),
        ours: job.owner_references().iter().any(|o| o.uid == model_uid),
        suspended: job
            .spec
            .as_ref()
            .and_then(|spec| spec.suspend)
            .unwrap_or(false),
        deleting: meta.deletion_timestamp.is_some(),
        created: created(meta, now),
        failure: failure.or_else(|| pods::job_failure(job)),
        facts,
        blocked: own.last().and_then(|pod| pods::blocked(pod, now)),
        progress: None,
        phase,
        kind,
        uid,
    })
}

fn job_phase(job: &Job, permanent: bool, now: Timestamp) -> JobPhase {
    let status = job.status.as_ref();
    let conditions = status
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let holds = |word: &str| {
        conditions
            .iter()
            .find(|c| c.type_ == word && c.status == "True")
    };
    if let Some(failed) = holds("Failed") {
        let at = failed
            .last_transition_time
            .as_ref()
            .map_or(now, |time| time.0);
        let by_policy = failed.reason.as_deref() == Some("PodFailurePolicy");
        return JobPhase::Failed {
            at,
            permanent: permanent || by_policy,
        };
    }
    if holds("Complete").is_some() {
        let at = status
            .and_then(|status| status.completion_time.as_ref())
            .map_or(now, |time| time.0);
        return JobPhase::Succeeded { at };
    }
    JobPhase::Active
}

fn observe_workload(deployment: &Deployment, live: &Live, now: Timestamp) -> Option<Workload> {
    let meta = &deployment.metadata;
    let id = label(meta, names::LABEL_WORKLOAD)?.to_owned();
    let pods = live
        .pods
        .iter()
        .filter(|pod| pod_workload(pod) == Some(&id))
        .map(|pod| pods::server(pod, now));
    let endpoints = ready_targets(live)
        .filter(|pod| workload_of(live, pod.as_deref()) == Some(&id))
        .count();
    Some(Workload {
        name: deployment.name_any(),
        uid: deployment.uid()?,
        artifact: label(meta, names::LABEL_ARTIFACT)
            .unwrap_or_default()
            .to_owned(),
        quant: annotation(meta, names::ANNOTATION_QUANT)
            .unwrap_or_default()
            .to_owned(),
        inputs: annotation(meta, names::ANNOTATION_INPUTS).map(str::to_owned),
        shown: shown(deployment),
        gpu: server_container(deployment).is_some_and(server::requests_gpu),
        on_given_volume: mounts_given(deployment),
        replicas: deployment
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1),
        stopped_at: annotation(meta, names::ANNOTATION_STOPPED_AT)
            .and_then(|time| time.parse().ok()),
        dark_at: annotation(meta, names::ANNOTATION_DARK_AT).and_then(|time| time.parse().ok()),
        emptied_at: annotation(meta, names::ANNOTATION_EMPTIED_AT)
            .and_then(|time| time.parse().ok()),
        deleting: meta.deletion_timestamp.is_some(),
        created: created(meta, now),
        pods: pods.collect(),
        refused: pods::refused(deployment, now),
        ready_endpoints: endpoints,
        id,
    })
}

fn server_container(deployment: &Deployment) -> Option<&Container> {
    let template = &deployment.spec.as_ref()?.template;
    template.spec.as_ref()?.containers.first()
}

/// Whether what it mounts has another name than our claims of its artifact.
fn mounts_given(deployment: &Deployment) -> bool {
    let meta = &deployment.metadata;
    let word = |key: &str| label(meta, key).unwrap_or_default();
    let own = names::claim(word(names::LABEL_INSTANCE), word(names::LABEL_ARTIFACT));
    let pod = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let volumes = pod.and_then(|pod| pod.volumes.as_deref());
    let claims = volumes
        .unwrap_or_default()
        .iter()
        .filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.into_iter().any(|claim| claim.claim_name != own)
}

fn shown(deployment: &Deployment) -> Vec<String> {
    let args = server_container(deployment).and_then(|container| container.args.as_deref());
    server::shown(args.unwrap_or_default())
}

fn selected_workload(service: &Service) -> Option<String> {
    let id = service
        .spec
        .as_ref()?
        .selector
        .as_ref()?
        .get(names::LABEL_WORKLOAD)?;
    (id != names::NO_WORKLOAD).then(|| id.clone())
}

/// The pod behind each ready endpoint of the Service; `None` for an endpoint that names no pod.
fn ready_targets(live: &Live) -> impl Iterator<Item = Option<String>> + '_ {
    live.slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter())
        .filter_map(|endpoint| {
            // An absent `ready` means unknown, which the API asks readers to take as ready.
            let ready = endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true);
            let target = endpoint.target_ref.as_ref();
            ready.then(|| {
                target
                    .filter(|t| t.kind.as_deref() == Some("Pod"))
                    .and_then(|t| t.name.clone())
            })
        })
}

fn workload_of<'a>(live: &'a Live, pod: Option<&str>) -> Option<&'a str> {
    let pod = live
        .pods
        .iter()
        .find(|candidate| candidate.metadata.name.as_deref() == pod)?;
    pod_workload(pod)
}

fn pod_workload(pod: &Pod) -> Option<&str> {
    let server = label(&pod.metadata, names::LABEL_COMPONENT) == Some(Component::Server.as_str());
    label(&pod.metadata, names::LABEL_WORKLOAD).filter(|_| server)
}

fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// An annotation of JSON; one that was edited by hand into something else counts as none.
fn parsed<T: serde::de::DeserializeOwned>(meta: &ObjectMeta, key: &str) -> Option<T> {
    annotation(meta, key).and_then(|json| serde_json::from_str(json).ok())
}

fn created(meta: &ObjectMeta, now: Timestamp) -> Timestamp {
    meta.creation_timestamp
        .as_ref()
        .map_or(now, |Time(time)| *time)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_predecessor_owned_is_left_over() {
        let model: KimiModel = serde_json::from_value(json!({
            "apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel", "metadata": {"name": "reader", "uid": "new"},
            "spec": {"model": "Kimi-K2-Instruct", "quant": "UD-Q2_K_XL", "hardware": "CPU"}}))
        .unwrap();
        let owned = |uids: &[&str]| {
            let owner = |uid| json!({"apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel", "name": "reader", "uid": uid});
            let owners: Vec<_> = uids.iter().map(owner).collect();
            let meta = serde_json::from_value(json!({"ownerReferences": owners})).unwrap();
            is_left_over(&meta, &model)
        };
        assert!(owned(&["old"]));
        assert!(!owned(&["new"]) && !owned(&["old", "new"]));
        assert!(
            !owned(&[]),
            "whoever took our name off it did not give it away"
        );
    }
}
