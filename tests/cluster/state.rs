//! Everything of one model in a namespace, without what differs between two runs of the same life: identities, times,
//! versions. Equal states are equal to a user. It must know no life.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kimi_operator::crd::KimiModel;
use kimi_operator::names;
use kube::api::{Api, ListParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// Keys whose values belong to one run. `message` is kept: conditions must say the same.
const OF_ONE_RUN: [&str; 27] = [
    "uid",
    "resourceVersion",
    "creationTimestamp",
    "managedFields",
    "namespace",
    "generation",
    "observedGeneration",
    "lastTransitionTime",
    "lastUpdateTime",
    "lastProbeTime",
    "startTime",
    "completionTime",
    "time",
    "timings",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "deployment.kubernetes.io/revision",
    "clusterIP",
    "clusterIPs",
    "nodePort",
    "selector",
    "conditions",
    "stageSeconds",
    "loadSeconds",
    "finalizers",
    names::ANNOTATION_OWNER,
    names::ANNOTATION_SERVED,
];

/// The state of a namespace.
pub(crate) async fn of(client: &Client, namespace: &str) -> kube::Result<Value> {
    let look = Look { client, namespace };
    let models = look.all::<KimiModel>().await?;
    let jobs = look.all::<Job>().await?;
    let claims = look.all::<PersistentVolumeClaim>().await?;
    let deployments = look.all::<Deployment>().await?;
    let services = look.all::<Service>().await?;
    Ok(json!({
        "KimiModel": models.iter().map(model).collect::<Vec<_>>(),
        "Job": jobs.iter().map(plain).collect::<Vec<_>>(),
        "PersistentVolumeClaim": claims.iter().map(plain).collect::<Vec<_>>(),
        "Deployment": deployments.iter().map(plain).collect::<Vec<_>>(),
        "Service": services.iter().map(service).collect::<Vec<_>>(),
        "pods": look.pods().await?,
        "endpoints": look.ready_endpoints().await?,
    }))
}

/// Ready endpoints of the model's Service.
pub(crate) async fn ready_endpoints(client: &Client, namespace: &str) -> kube::Result<usize> {
    let endpoints = Look { client, namespace }.ready_endpoints().await?;
    Ok(endpoints.values().sum())
}

/// True if nothing that runs or leads to something that runs is left.
pub(crate) fn is_empty(state: &Value) -> bool {
    let empty = |kind: &str| match &state[kind] {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => true,
    };
    [
        "KimiModel",
        "Job",
        "Deployment",
        "Service",
        "pods",
        "endpoints",
    ]
    .into_iter()
    .all(empty)
}

struct Look<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Look<'_> {
    async fn list<K>(&self) -> kube::Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), self.namespace);
        Ok(api.list(&ListParams::default()).await?.items)
    }

    async fn all<K>(&self) -> kube::Result<Vec<Value>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned
            + Serialize,
    {
        let mut objects = self.list::<K>().await?;
        objects.sort_by_key(ResourceExt::name_any);
        let values = objects
            .iter()
            .map(|object| serde_json::to_value(object).unwrap());
        Ok(values.collect())
    }

    /// Pods by what they are, with their phase.
    async fn pods(&self) -> kube::Result<BTreeMap<String, usize>> {
        let mut counts = BTreeMap::new();
        for pod in self.list::<Pod>().await? {
            *counts.entry(kind_of(&pod)).or_default() += 1;
        }
        Ok(counts)
    }

    /// Ready endpoints by the pods they lead to.
    async fn ready_endpoints(&self) -> kube::Result<BTreeMap<String, usize>> {
        let pods = self.list::<Pod>().await?;
        let mut counts = BTreeMap::new();
        let slices = self.list::<EndpointSlice>().await?;
        for endpoint in slices.iter().flat_map(|slice| &slice.endpoints) {
            let ready = endpoint.conditions.as_ref().and_then(|c| c.ready);
            if ready != Some(true) {
                continue;
            }
            let name = endpoint.target_ref.as_ref().and_then(|t| t.name.as_deref());
            let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == name);
            let kind = pod.map_or_else(|| "nobody".to_owned(), kind_of);
            *counts.entry(kind).or_default() += 1;
        }
        Ok(counts)
    }
}

fn kind_of(pod: &Pod) -> String {
    let label = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
    let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
    format!(
        "{} {} {}{}",
        label(names::LABEL_COMPONENT),
        label(names::LABEL_WORKLOAD),
        phase.unwrap_or_default(),
        if pod.metadata.deletion_timestamp.is_some() {
            ", ending"
        } else {
            ""
        }
    )
}

/// Spec and words of a KimiModel: its conditions in full.
fn model(object: &Value) -> Value {
    let mut kept = plain(object);
    let words = object["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten();
    let words = words.map(|c| {
        (
            c["type"].clone(),
            c["status"].clone(),
            c["reason"].clone(),
            c["message"].clone(),
        )
    });
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let here = kept["status"]["endpoint"]
        .as_str()
        .map(|url| url.replace(namespace, "NAMESPACE"));
    kept["status"]["endpoint"] = json!(here);
    kept["conditions"] = json!(words.collect::<Vec<_>>());
    kept["isObserved"] =
        json!(object["status"]["observedGeneration"] == object["metadata"]["generation"]);
    kept
}

/// A Service keeps what it selects.
fn service(object: &Value) -> Value {
    let mut kept = plain(object);
    kept["selects"] = object["spec"]["selector"].clone();
    kept
}

/// The object without what belongs to one run.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map
                .iter()
                .filter(|(key, _)| !OF_ONE_RUN.contains(&key.as_str()));
            let kept = kept.map(|(key, value)| (key.clone(), plain(value)));
            Value::Object(
                kept.filter(|(_, value)| *value != json!({}))
                    .collect::<Map<_, _>>(),
            )
        }
        Value::Array(list) => Value::Array(list.iter().map(plain).collect()),
        // Annotations hold JSON of their own.
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner @ (Value::Object(_) | Value::Array(_))) => plain(&inner),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

/// The first differences between two states, one a line.
pub(crate) fn differences(wanted: &Value, got: &Value) -> String {
    let mut lines = Vec::new();
    compare("", wanted, got, &mut lines);
    lines.truncate(12);
    lines.join("\n")
}

fn compare(path: &str, wanted: &Value, got: &Value, lines: &mut Vec<String>) {
    match (wanted, got) {
        _ if wanted == got => {}
        (Value::Object(left), Value::Object(right)) => {
            let keys: std::collections::BTreeSet<&String> =
                left.keys().chain(right.keys()).collect();
            for key in keys {
                let (left, right) = (&wanted[key.as_str()], &got[key.as_str()]);
                compare(&format!("{path}/{key}"), left, right, lines);
            }
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                compare(&format!("{path}/{index}"), left, right, lines);
            }
        }
        _ => lines.push(format!("{path}: wanted {wanted}, got {got}")),
    }
}
