//! Scheduler and kubelet for pods of KimiModels, played by the test: each step moves every pod on by one state. Jobs,
//! Deployments, endpoints and garbage are the real controllers' work. It must know nothing of the operator's decisions.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kimi_operator::names;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::lab;

/// The one node that every pod runs on.
pub(crate) const NODE: &str = "n1";
/// The operator's pods.
const OURS: &str = "app.kubernetes.io/managed-by=kimi-operator";
/// Between two tries.
const PAUSE: Duration = Duration::from_secs(1);
/// Pods moved on at once.
const HANDS: usize = 16;

/// The scripted node.
#[derive(Clone)]
pub(crate) struct Kubelet {
    client: Client,
    pods: Api<Pod>,
}

/// Makes the node.
pub(crate) async fn join(client: &Client) {
    let node = json!({"metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE}}});
    lab::apply_cluster::<Node>(client, node).await;
    let status = json!({"status": {
        "allocatable": {"cpu": "64", "memory": "64Ti", "pods": "10000"},
        "capacity": {"cpu": "64", "memory": "64Ti", "pods": "10000"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "Test", "message": "",
                        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
    }});
    Api::<Node>::all(client.clone())
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
}

impl Kubelet {
    /// The node's hands on the pods of one namespace, or of all.
    pub(crate) fn new(client: &Client, namespace: Option<&str>) -> Self {
        let pods = match namespace {
            Some(namespace) => Api::namespaced(client.clone(), namespace),
            None => Api::all(client.clone()),
        };
        let client = client.clone();
        Self { client, pods }
    }

    /// Moves every pod on by one state; how many pods had one to go to.
    pub(crate) async fn step(&self) -> kube::Result<usize> {
        let ours = ListParams::default().labels(OURS);
        let pods = self.pods.list(&ours).await?.items;
        stream::iter(pods)
            .map(|pod| self.move_on(pod))
            .buffer_unordered(HANDS)
            .try_fold(0, |moved, did| {
                std::future::ready(Ok(moved + usize::from(did)))
            })
            .await
    }

    /// Moves each pod on whenever it is seen to have changed, for ever. As a node does, it watches: listing thousands of
    /// pods every second would keep the API server from everybody else.
    pub(crate) async fn follow(self) {
        let events = watcher(self.pods.clone(), watcher::Config::default().labels(OURS));
        events
            .default_backoff()
            .for_each_concurrent(HANDS, |event| async {
                if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event {
                    while self.move_on(pod.clone()).await.is_err() {
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            })
            .await;
    }

    async fn move_on(&self, pod: Pod) -> kube::Result<bool> {
        let outcome = self.next_state(&pod).await;
        match outcome {
            // Gone or changed meanwhile: the next step sees what it is now.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(true),
            other => other,
        }
    }

    async fn next_state(&self, pod: &Pod) -> kube::Result<bool> {
        let pods: Api<Pod> =
            Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
        let name = pod.name_any();
        if pod.metadata.deletion_timestamp.is_some() {
            let this = Preconditions {
                uid: pod.uid(),
                resource_version: None,
            };
            let now = DeleteParams::default().grace_period(0).preconditions(this);
            pods.delete(&name, &now).await?;
            return Ok(true);
        }
        let bound = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_some());
        if !bound {
            let target = json!({"apiVersion": "v1", "kind": "Node", "name": NODE});
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
            pods.create_subresource::<Value, Value>(
                "binding",
                &name,
                &PostParams::default(),
                &binding,
            )
            .await?;
            return Ok(true);
        }
        let Some(status) = next_status(pod) else {
            return Ok(false);
        };
        pods.patch_status(
            &name,
            &PatchParams::default(),
            &Patch::Merge(json!({ "status": status })),
        )
        .await?;
        Ok(true)
    }
}

/// Pending → Running → what the container is for; `None` at the end.
fn next_status(pod: &Pod) -> Option<Value> {
    let now = jiff::Timestamp::now().to_string();
    let container = pod.spec.as_ref()?.containers.first()?;
    let status = pod.status.as_ref()?;
    let component = pod.labels().get(names::LABEL_COMPONENT)?.as_str();
    let report = |state: Value, ready: bool| {
        json!([{"name": container.name, "image": container.image, "imageID": "", "ready": ready, "restartCount": 0,
                "started": true, "state": state}])
    };
    let running = json!({"running": {"startedAt": now}});
    if status.phase.as_deref() == Some("Pending") {
        return Some(
            json!({"phase": "Running", "startTime": now, "containerStatuses": report(running, false)}),
        );
    }
    if status.phase.as_deref() != Some("Running") {
        return None;
    }
    if component == names::Component::Server.as_str() {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        if conditions
            .iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
        {
            return None;
        }
        let condition =
            |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
        let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(condition);
        // The node's own: what is asked there is refused at once.
        let address = std::env::var("KIMI_NODE_IP").unwrap_or_else(|_| "192.0.2.10".to_owned());
        return Some(
            json!({"podIP": address, "podIPs": [{"ip": address}], "conditions": conditions,
                           "containerStatuses": report(running, true)}),
        );
    }
    let quant = argument(container.args.as_deref().unwrap_or_default(), "--quant");
    let message = match component == names::Component::Inspect.as_str() {
        true => json!({"facts": lab::facts(&quant)}).to_string(),
        false => "{}".to_owned(),
    };
    let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": message,
                                      "startedAt": now, "finishedAt": now}});
    Some(json!({"phase": "Succeeded", "containerStatuses": report(ended, false)}))
}

fn argument(args: &[String], flag: &str) -> String {
    let mut after = args.iter().skip_while(|arg| *arg != flag);
    after.nth(1).cloned().unwrap_or_default()
}
