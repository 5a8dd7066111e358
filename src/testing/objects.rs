//! Reading and changing the Kubernetes objects of the cluster in memory: labels, owners, pod states. It must know nothing
//! about when anything happens.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, Node,
    NodeCondition, NodeSpec, NodeStatus, PersistentVolumeClaim, Pod, PodCondition,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sizing::hardware::PRODUCT_LABEL;

use crate::names::{self, GPU_RESOURCE};

pub(super) fn keep_identity(
    new: &mut ObjectMeta,
    live: Option<&ObjectMeta>,
    now: Timestamp,
    serial: &mut u32,
) {
    *serial += u32::from(live.is_none());
    new.uid = live.map_or_else(|| Some(format!("uid-{serial}")), |live| live.uid.clone());
    new.creation_timestamp =
        live.map_or_else(|| Some(Time(now)), |live| live.creation_timestamp.clone());
}

pub(super) fn node(name: &str, memory: u64, product: Option<&str>) -> Node {
    let mut allocatable = BTreeMap::from([("memory".to_owned(), Quantity(memory.to_string()))]);
    if product.is_some() {
        allocatable.insert(GPU_RESOURCE.to_owned(), Quantity("1".to_owned()));
    }
    let label = |product: &str| (PRODUCT_LABEL.to_owned(), product.to_owned());
    Node {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: product.map(|product| BTreeMap::from([label(product)])),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec::default()),
        status: Some(NodeStatus {
            allocatable: Some(allocatable),
            conditions: Some(vec![NodeCondition {
                type_: "Ready".to_owned(),
                status: "True".to_owned(),
                ..NodeCondition::default()
            }]),
            ..NodeStatus::default()
        }),
    }
}

/// A merge patch on an object: null removes, an object goes into depth, anything else replaces.
pub(super) fn merged<K: Serialize + DeserializeOwned>(live: &K, patch: &Value) -> K {
    fn merge(live: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *live = patch.clone();
            return;
        };
        if !live.is_object() {
            *live = json!({});
        }
        let live = live.as_object_mut().unwrap();
        for (key, value) in patch {
            if value.is_null() {
                live.remove(key);
            } else {
                merge(live.entry(key).or_insert(Value::Null), value);
            }
        }
    }
    let mut value = serde_json::to_value(live).unwrap();
    merge(&mut value, patch);
    serde_json::from_value(value).unwrap()
}

pub(super) fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

pub(super) fn owner(pod: &Pod) -> Option<&str> {
    pod.metadata
        .owner_references
        .as_ref()?
        .first()
        .map(|owner| owner.uid.as_str())
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default()
}

pub(super) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    conditions
        .iter()
        .any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Memory requested, bytes; only servers count.
pub(super) fn request(pod: &Pod) -> u64 {
    let server = label(&pod.metadata, names::LABEL_COMPONENT) == Some("server");
    let requests = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers[0].resources.as_ref()?.requests.as_ref());
    let memory = requests.and_then(|requests| spec::parse_quantity(&requests.get("memory")?.0));
    memory.filter(|_| server).unwrap_or(0)
}

/// GPUs requested.
pub(super) fn gpus(pod: &Pod) -> u64 {
    let limits = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.containers[0].resources.as_ref()?.limits.as_ref());
    limits
        .and_then(|limits| spec::parse_quantity(&limits.get(GPU_RESOURCE)?.0))
        .unwrap_or(0)
}

pub(super) fn bind(claim: &mut PersistentVolumeClaim) {
    claim.status.get_or_insert_default().phase = Some("Bound".to_owned());
}

pub(super) fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    phase == Some("Bound")
}

/// Bytes requested of a volume.
pub(super) fn storage(claim: &PersistentVolumeClaim) -> u64 {
    let resources = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    resources
        .and_then(|requests| spec::parse_quantity(&requests.get("storage")?.0))
        .unwrap_or(0)
}

pub(super) fn argument(args: &Option<Vec<String>>, flag: &str) -> String {
    let args = args.as_deref().unwrap_or_default();
    args.iter()
        .skip_while(|arg| *arg != flag)
        .nth(1)
        .cloned()
        .unwrap_or_default()
}

pub(super) fn run(pod: &mut Pod, node: &str, now: Timestamp) {
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

/// The scheduler finds no Node, for want of `lack`.
pub(super) fn refuse(pod: &mut Pod, lack: &str, now: Timestamp) {
    let known = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref())
        .is_some();
    if !known {
        set_condition(pod, "PodScheduled", "False", Some("Unschedulable"), now);
        let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
        conditions[0].message = Some(format!("0/1 nodes are available: 1 {lack}."));
    }
}

pub(super) fn end(pod: &mut Pod, code: i32, message: String, now: Timestamp) {
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

/// Starts the container of a server again if it has ended.
pub(super) fn restart(pod: &mut Pod, now: Timestamp) {
    let statuses = pod.status.as_mut().unwrap().container_statuses.as_mut();
    let status = &mut statuses.unwrap()[0];
    if status.state.as_ref().unwrap().terminated.is_none() {
        return;
    }
    status.last_state = status.state.take();
    status.restart_count += 1;
    status.state = Some(ContainerState {
        running: Some(ContainerStateRunning {
            started_at: Some(Time(now)),
        }),
        ..ContainerState::default()
    });
}

pub(super) fn set_state(pod: &mut Pod, state: ContainerState) {
    let statuses = &mut pod.status.as_mut().unwrap().container_statuses;
    let restart_count = statuses
        .as_ref()
        .map_or(0, |statuses| statuses[0].restart_count);
    *statuses = Some(vec![ContainerStatus {
        state: Some(state),
        restart_count,
        ..ContainerStatus::default()
    }]);
}

pub(super) fn set_condition(
    pod: &mut Pod,
    kind: &str,
    status: &str,
    reason: Option<&str>,
    now: Timestamp,
) {
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
        last_transition_time: Some(Time(now)),
        ..PodCondition::default()
    });
}
