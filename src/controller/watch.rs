//! The watches: every kind the operator looks at is kept in memory, trimmed to what is read, and each change names the
//! KimiModels to look at again. It must not know what a change means.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Event, Node, NodeSpec, NodeStatus, PersistentVolumeClaim, Pod, PodSpec, PodTemplateSpec,
    Service,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::crd::KimiModel;
use crate::names;

/// A KimiModel that may not parse: one bad object must not end the watch of the others.
pub type Guarded = DeserializeGuard<KimiModel>;
/// Where changes are sent: a model to look at again.
pub type Queue = UnboundedSender<ObjectRef<Guarded>>;

/// Everything watched, as of the last event.
#[derive(Clone, Debug)]
pub struct Stores {
    pub models: Store<Guarded>,
    pub jobs: Store<Job>,
    pub pods: Store<Pod>,
    pub claims: Store<PersistentVolumeClaim>,
    pub deployments: Store<Deployment>,
    pub services: Store<Service>,
    pub slices: Store<EndpointSlice>,
    pub budgets: Store<PodDisruptionBudget>,
    pub policies: Store<NetworkPolicy>,
    pub nodes: Store<Node>,
    /// Provisioners' failures to provide a volume, which stand nowhere else.
    pub events: Store<Event>,
}

impl Stores {
    /// Starts one task per kind in `tasks`; they end only when aborted.
    pub fn start(
        client: &Client,
        namespace: Option<&str>,
        queue: &Queue,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let watch = Watch {
            client,
            namespace,
            queue,
        };
        let models = watch.models(tasks);
        let claims = watch.related(tasks, |_: &mut PersistentVolumeClaim| {});
        Self {
            jobs: watch.related(tasks, trim_job),
            pods: watch.related(tasks, trim_pod),
            events: watch.provisioning(tasks, claims.clone()),
            claims,
            deployments: watch.related(tasks, |_: &mut Deployment| {}),
            services: watch.related(tasks, |_: &mut Service| {}),
            // The EndpointSlice controller copies the Service's labels, so the same selector finds the slices.
            slices: watch.related(tasks, |_: &mut EndpointSlice| {}),
            budgets: watch.related(tasks, |_: &mut PodDisruptionBudget| {}),
            policies: watch.related(tasks, |_: &mut NetworkPolicy| {}),
            nodes: watch.nodes(tasks, models.clone()),
            models,
        }
    }

    /// Returns when every kind had one complete list. Before that a missing object may only be unseen.
    pub async fn wait_until_ready(&self) {
        let Self {
            models,
            jobs,
            pods,
            claims,
            deployments,
            services,
            slices,
            budgets,
            policies,
            nodes,
            events,
        } = self;
        // An error means that the watch task is gone, which its JoinSet reports.
        let _ = models.wait_until_ready().await;
        let _ = jobs.wait_until_ready().await;
        let _ = pods.wait_until_ready().await;
        let _ = claims.wait_until_ready().await;
        let _ = deployments.wait_until_ready().await;
        let _ = services.wait_until_ready().await;
        let _ = slices.wait_until_ready().await;
        let _ = budgets.wait_until_ready().await;
        let _ = policies.wait_until_ready().await;
        let _ = nodes.wait_until_ready().await;
        let _ = events.wait_until_ready().await;
    }
}

/// Returns once the API server serves KimiModels; says so once while it does not.
pub async fn wait_for_crd(client: &Client, namespace: Option<&str>) {
    let api: Api<Guarded> = scoped(client, namespace);
    let mut told = false;
    loop {
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return,
            Err(error) if told => tracing::debug!(%error, "KimiModels still cannot be listed"),
            Err(error) => {
                told = true;
                tracing::warn!(%error, "KimiModels cannot be listed yet; is the CRD installed (kimi-operator crd)?");
            }
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

struct Watch<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    queue: &'a Queue,
}

impl Watch<'_> {
    fn models(&self, tasks: &mut JoinSet<()>) -> Store<Guarded> {
        let (reader, writer) = store();
        let queue = self.queue.clone();
        let stream = watcher(
            scoped(self.client, self.namespace),
            watcher::Config::default(),
        )
        .default_backoff()
        .modify(strip)
        .reflect(writer)
        .touched_objects();
        tasks.spawn(stream.for_each(move |seen: watcher::Result<Guarded>| {
            if let Some(model) = logged("KimiModel", seen) {
                send(&queue, ObjectRef::from_obj(&model));
            }
            std::future::ready(())
        }));
        reader
    }

    /// Watches the objects of one kind that carry our label; each belongs to the model its instance label names.
    fn related<K>(&self, tasks: &mut JoinSet<()>, trim: fn(&mut K)) -> Store<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let (reader, writer) = store();
        let queue = self.queue.clone();
        let ours = watcher::Config::default().labels(&format!(
            "{}={}",
            names::LABEL_MANAGED_BY,
            names::FIELD_MANAGER
        ));
        let stream = watcher(scoped::<K>(self.client, self.namespace), ours)
            .default_backoff()
            .modify(move |object| {
                strip(object);
                trim(object);
            })
            .reflect(writer)
            .touched_objects();
        tasks.spawn(stream.for_each(move |seen: watcher::Result<K>| {
            if let Some(object) = logged(&K::kind(&()), seen)
                && let Some(model) = owner(&object)
            {
                send(&queue, model);
            }
            std::future::ready(())
        }));
        reader
    }

    /// Watches what provisioners say of claims that they cannot provide for; only of claims that are ours does it wake
    /// anybody.
    fn provisioning(
        &self,
        tasks: &mut JoinSet<()>,
        claims: Store<PersistentVolumeClaim>,
    ) -> Store<Event> {
        let (reader, writer) = store();
        let queue = self.queue.clone();
        let failures = watcher::Config::default()
            .fields("involvedObject.kind=PersistentVolumeClaim,reason=ProvisioningFailed");
        let stream = watcher(scoped::<Event>(self.client, self.namespace), failures)
            .default_backoff()
            .modify(strip)
            .reflect(writer)
            .touched_objects();
        tasks.spawn(stream.for_each(move |seen: watcher::Result<Event>| {
            let about = logged("Event", seen).and_then(|event| {
                let object = event.involved_object;
                let claim = ObjectRef::new(&object.name?).within(&object.namespace?);
                owner(claims.get(&claim)?.as_ref())
            });
            if let Some(model) = about {
                send(&queue, model);
            }
            std::future::ready(())
        }));
        reader
    }

    /// Watches Nodes. Kubelets report every few minutes; only a change of what placement reads wakes the models.
    fn nodes(&self, tasks: &mut JoinSet<()>, models: Store<Guarded>) -> Store<Node> {
        let (reader, writer) = store();
        let queue = self.queue.clone();
        let mut known: BTreeMap<String, u64> = BTreeMap::new();
        let stream = watcher(
            Api::<Node>::all(self.client.clone()),
            watcher::Config::default(),
        )
        .default_backoff()
        .modify(|node| {
            strip(node);
            trim_node(node);
        })
        .reflect(writer);
        tasks.spawn(stream.for_each(move |event| {
            let changed = match logged("Node", event) {
                Some(watcher::Event::Apply(node) | watcher::Event::InitApply(node)) => {
                    let print = fingerprint(&node);
                    known.insert(node.name_any(), print) != Some(print)
                }
                Some(watcher::Event::Delete(node)) => known.remove(&node.name_any()).is_some(),
                Some(watcher::Event::Init | watcher::Event::InitDone) | None => false,
            };
            if changed {
                models
                    .state()
                    .iter()
                    .for_each(|model| send(&queue, ObjectRef::from_obj(model.as_ref())));
            }
            std::future::ready(())
        }));
        reader
    }
}

fn logged<T>(kind: &str, seen: watcher::Result<T>) -> Option<T> {
    // The stream retries by itself, with back-off.
    seen.map_err(|error| tracing::warn!(kind, %error, "watch interrupted"))
        .ok()
}

fn send(queue: &Queue, model: ObjectRef<Guarded>) {
    // Fails only when the controller is shutting down.
    let _ = queue.unbounded_send(model);
}

/// The KimiModel an object of ours belongs to.
fn owner<K: Resource>(object: &K) -> Option<ObjectRef<Guarded>> {
    let name = object.meta().labels.as_ref()?.get(names::LABEL_INSTANCE)?;
    let namespace = object.meta().namespace.as_deref()?;
    Some(ObjectRef::new(name).within(namespace))
}

/// Managed fields are half of an object and nobody here reads them.
fn strip<K: Resource>(object: &mut K) {
    object.meta_mut().managed_fields = None;
}

/// A Job is never applied again, so that nobody reads its template.
fn trim_job(job: &mut Job) {
    if let Some(spec) = &mut job.spec {
        spec.template = PodTemplateSpec::default();
    }
}

fn trim_pod(pod: &mut Pod) {
    let node_name = pod.spec.take().and_then(|spec| spec.node_name);
    pod.spec = Some(PodSpec {
        node_name,
        ..PodSpec::default()
    });
}

fn trim_node(node: &mut Node) {
    node.metadata.annotations = None;
    let unschedulable = node.spec.take().and_then(|spec| spec.unschedulable);
    node.spec = Some(NodeSpec {
        unschedulable,
        ..NodeSpec::default()
    });
    let Some(status) = node.status.take() else {
        return;
    };
    let ready = status.conditions.map(|all| {
        let ready = all
            .into_iter()
            .filter(|condition| condition.type_ == "Ready");
        ready.map(|condition| k8s_openapi::api::core::v1::NodeCondition {
            type_: condition.type_,
            status: condition.status,
            ..Default::default()
        })
    });
    node.status = Some(NodeStatus {
        allocatable: status.allocatable,
        conditions: ready.map(Iterator::collect),
        ..NodeStatus::default()
    });
}

/// Hash of a trimmed Node without its resource version.
fn fingerprint(node: &Node) -> u64 {
    let mut hasher = DefaultHasher::new();
    node.metadata.labels.hash(&mut hasher);
    node.spec
        .as_ref()
        .and_then(|spec| spec.unschedulable)
        .hash(&mut hasher);
    if let Some(status) = &node.status {
        for (name, quantity) in status.allocatable.iter().flatten() {
            (name, &quantity.0).hash(&mut hasher);
        }
        for condition in status.conditions.iter().flatten() {
            condition.status.hash(&mut hasher);
        }
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn node(heartbeat: &str, ready: &str, memory: &str) -> Node {
        let mut node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n", "resourceVersion": heartbeat, "labels": {"a": "b"}, "annotations": {"x": "y"}},
            "status": {
                "allocatable": {"memory": memory},
                "images": [{"names": ["large"]}],
                "conditions": [
                    {"type": "MemoryPressure", "status": "False", "lastHeartbeatTime": "2026-01-01T00:00:00Z"},
                    {"type": "Ready", "status": ready, "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]}
        }))
        .unwrap();
        trim_node(&mut node);
        node
    }

    #[test]
    fn a_heartbeat_wakes_nobody() {
        let before = fingerprint(&node("1", "True", "16Gi"));
        assert_eq!(before, fingerprint(&node("2", "True", "16Gi")));
        assert_ne!(before, fingerprint(&node("2", "False", "16Gi")));
        assert_ne!(before, fingerprint(&node("2", "True", "8Gi")));
    }

    #[test]
    fn objects_lead_to_their_model() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {
            "name": "kimi-abc-1", "namespace": "llm", "labels": {"app.kubernetes.io/instance": "kimi"}}}))
        .unwrap();
        let model = owner(&pod).unwrap();
        assert_eq!(
            (model.name.as_str(), model.namespace.as_deref()),
            ("kimi", Some("llm"))
        );
    }
}
