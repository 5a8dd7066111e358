//! A cluster as a user has it: apply YAML, wait for conditions, read what `kubectl` would show. Every object is
//! dynamic JSON: the operator's types stay unknown here, so that a scenario fails when the wire form changes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Namespace, Node, PersistentVolumeClaim, Pod, Service};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::hub::checkout;

/// Namespace the chart is installed in.
pub const OPERATOR_NAMESPACE: &str = "kimi-system";

/// The cluster of `KUBECONFIG`.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// Address of this machine as pods reach it.
    pub node_ip: String,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("node_ip", &self.node_ip)
            .finish_non_exhaustive()
    }
}

fn model_resource() -> ApiResource {
    ApiResource {
        group: "kimioperator.dev".into(),
        version: "v1alpha1".into(),
        api_version: "kimioperator.dev/v1alpha1".into(),
        kind: "KimiModel".into(),
        plural: "kimimodels".into(),
    }
}

/// Reads one YAML document into JSON.
///
/// # Errors
/// When it is not YAML.
pub fn yaml(text: &str) -> Result<Value> {
    Ok(serde_yaml::from_str(text)?)
}

/// Status and message of one condition of a KimiModel, `("", "", "")` when it has none of that type.
pub fn condition<'a>(model: &'a Value, kind: &str) -> (&'a str, &'a str, &'a str) {
    let conditions = model["status"]["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|c| c["type"] == kind);
    let field = |name: &str| found.and_then(|c| c[name].as_str()).unwrap_or_default();
    (field("status"), field("reason"), field("message"))
}

impl Cluster {
    /// Connects to `KUBECONFIG`; `KIMI_NODE_IP` is this machine's address as pods reach it.
    ///
    /// # Errors
    /// When there is no cluster; says how to get one.
    pub async fn connect() -> Result<Self> {
        if std::env::var_os("KUBECONFIG").is_none() {
            bail!(
                "no KUBECONFIG: run this through e2e/cluster/with-cluster.sh, or set it to a cluster of yours"
            );
        }
        // As in the operator: a workspace build gives rustls two providers.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_default().await?;
        let node_ip = match std::env::var("KIMI_NODE_IP") {
            Ok(ip) => ip,
            Err(_) => first_node_ip(&client).await?,
        };
        Ok(Self { client, node_ip })
    }

    /// Installs this checkout's chart with Helm and waits for the operator.
    ///
    /// # Errors
    /// With Helm's own words.
    pub fn install(&self) -> Result<()> {
        self.install_chart(&checkout().join("charts/kimi-operator"), "dev")
    }

    /// Installs a chart, or upgrades to it, with the images of this tag.
    ///
    /// # Errors
    /// With Helm's own words.
    pub fn install_chart(&self, chart: &Path, tag: &str) -> Result<()> {
        let image = |name: &str| format!("image.{name}=docker.io/local/kimi-{name}:{tag}");
        let output = Command::new("helm")
            .args(["upgrade", "--install", "kimi-operator"])
            .arg(chart)
            .args([
                "--namespace",
                OPERATOR_NAMESPACE,
                "--create-namespace",
                "--wait",
                "--timeout",
                "120s",
            ])
            .args(["--set", &image("operator"), "--set", &image("worker")])
            .args(["--set", "image.pullPolicy=IfNotPresent"])
            // Such as OpenShift assigns: no image, volume or pod may count on a UID of its own choosing.
            .args(["--set", "securityContext.runAsUser=1000680000"])
            .args(["--set", "securityContext.fsGroup=1000690000"])
            .output()
            .context("running helm")?;
        if !output.status.success() {
            bail!(
                "helm: {}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// A namespace that enforces the `restricted` Pod Security Standard.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn namespace(&self, name: &str) -> Result<()> {
        let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        let api: Api<Namespace> = Api::all(self.client.clone());
        api.patch(
            name,
            &PatchParams::apply("e2e").force(),
            &Patch::Apply(body),
        )
        .await?;
        Ok(())
    }

    /// Deletes the KimiModels of a namespace, waits until their pods are gone, then deletes the namespace. In this
    /// order because the API server, asked to delete a namespace with pods in it, looks again only after half of the
    /// longest grace period, which for a server that lets streams finish is half an hour.
    ///
    /// # Errors
    /// When something is still there after two minutes.
    pub async fn delete_namespace(&self, name: &str) -> Result<()> {
        let models = self.models(name);
        for model in models.list(&ListParams::default()).await? {
            models
                .delete(&model.name_any(), &DeleteParams::default())
                .await?;
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), name);
        gone("its pods", || async {
            Ok(pods.list(&ListParams::default()).await?.items.is_empty())
        })
        .await?;
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces.delete(name, &DeleteParams::default()).await?;
        gone("the namespace", || async {
            Ok(namespaces.get_opt(name).await?.is_none())
        })
        .await
    }

    /// A Service without a selector in front of the hub stand-in on this machine.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn publish_hub(&self) -> Result<()> {
        let ports = json!([{"name": "hub", "port": 8088}, {"name": "cdn", "port": 8089}]);
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hub", "namespace": "hub"},
            "spec": {"ports": ports}});
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": "hub", "namespace": "hub", "labels": {"kubernetes.io/service-name": "hub"}},
            "ports": ports, "endpoints": [{"addresses": [self.node_ip]}]});
        // The slice names ports as `port`, like the Service, so one list serves both.
        self.namespace("hub").await?;
        let params = PatchParams::apply("e2e").force();
        let services: Api<Service> = Api::namespaced(self.client.clone(), "hub");
        services
            .patch("hub", &params, &Patch::Apply(service))
            .await?;
        let slices: Api<k8s_openapi::api::discovery::v1::EndpointSlice> =
            Api::namespaced(self.client.clone(), "hub");
        slices.patch("hub", &params, &Patch::Apply(slice)).await?;
        Ok(())
    }

    /// KimiModels of one namespace.
    pub fn models(&self, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, &model_resource())
    }

    /// `kubectl apply` of a KimiModel.
    ///
    /// # Errors
    /// When the API server refuses it (its words are kept).
    pub async fn apply(&self, model: &Value) -> Result<()> {
        let metadata = &model["metadata"];
        let (namespace, name) = (metadata["namespace"].as_str(), metadata["name"].as_str());
        let (namespace, name) = (namespace.context("no namespace")?, name.context("no name")?);
        self.models(namespace)
            .patch(
                name,
                &PatchParams::apply("e2e").force(),
                &Patch::Apply(model),
            )
            .await?;
        Ok(())
    }

    /// `kubectl patch --type merge` of the spec.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn edit(&self, namespace: &str, name: &str, spec: &Value) -> Result<()> {
        let patch = json!({ "spec": spec });
        self.models(namespace)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Empties `.status`.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub async fn wipe_status(&self, namespace: &str, name: &str) -> Result<()> {
        let patch = json!({ "status": null });
        self.models(namespace)
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// The KimiModel as `kubectl get -o json` shows it.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn get(&self, namespace: &str, name: &str) -> Result<Value> {
        Ok(serde_json::to_value(
            self.models(namespace).get(name).await?,
        )?)
    }

    /// Polls until `done` holds; on time-out tells the story: the last object, pods and recent events.
    ///
    /// # Errors
    /// When `limit` passes first.
    pub async fn wait(
        &self,
        (namespace, name): (&str, &str),
        what: &str,
        limit: Duration,
        done: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let start = Instant::now();
        loop {
            let model = self.get(namespace, name).await?;
            if done(&model) {
                return Ok(model);
            }
            if start.elapsed() > limit {
                let model = serde_json::to_string_pretty(
                    &json!({"spec": model["spec"], "status": model["status"]}),
                )?;
                let story = self
                    .story(namespace)
                    .await
                    .unwrap_or_else(|e| e.to_string());
                bail!("{namespace}/{name}: no {what} within {limit:?}\n{model}\n{story}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits for `Ready=True` at the current generation.
    ///
    /// # Errors
    /// As [`Cluster::wait`].
    pub async fn wait_ready(&self, namespace: &str, name: &str, limit: Duration) -> Result<Value> {
        self.wait((namespace, name), "Ready", limit, |model| {
            model["status"]["observedGeneration"] == model["metadata"]["generation"]
                && condition(model, "Ready").0 == "True"
                && condition(model, "Reconciling").0 != "True"
        })
        .await
    }

    /// `ip:port` of the model's Service.
    ///
    /// # Errors
    /// When it has none yet.
    pub async fn address(&self, namespace: &str, name: &str) -> Result<String> {
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let spec = api
            .get(name)
            .await?
            .spec
            .context("a Service without spec")?;
        let port = spec
            .ports
            .context("no ports")?
            .first()
            .context("no port")?
            .port;
        Ok(format!(
            "{}:{port}",
            spec.cluster_ip.context("no cluster IP")?
        ))
    }

    /// Pods of one KimiModel with the given component label.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn pods(&self, namespace: &str, component: &str) -> Result<Vec<Pod>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let params =
            ListParams::default().labels(&format!("app.kubernetes.io/component={component}"));
        Ok(api.list(&params).await?.items)
    }

    /// Deletes the Jobs that have finished, with their pods; returns how many there were.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete_finished_jobs(&self, namespace: &str) -> Result<usize> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        let jobs = api.list(&ListParams::default()).await?.items;
        let finished = |job: &&Job| {
            job.status
                .as_ref()
                .is_some_and(|s| s.completion_time.is_some())
        };
        let names: Vec<String> = jobs
            .iter()
            .filter(finished)
            .map(ResourceExt::name_any)
            .collect();
        for name in &names {
            api.delete(name, &DeleteParams::background()).await?;
        }
        Ok(names.len())
    }

    /// Deletes the pods of a component without grace, as a lost Node would; returns how many there were.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn kill_pods(&self, namespace: &str, component: &str) -> Result<usize> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = self.pods(namespace, component).await?;
        for pod in &pods {
            let now = DeleteParams::default().grace_period(0);
            api.delete(&pod.name_any(), &now).await?;
        }
        Ok(pods.len())
    }

    /// Kills the operator as a lost Node would; its Deployment starts another.
    ///
    /// # Errors
    /// When there is none.
    pub async fn kill_operator(&self) -> Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR_NAMESPACE);
        let ours = ListParams::default().labels("app.kubernetes.io/name=kimi-operator");
        let running = pods.list(&ours).await?.items;
        if running.is_empty() {
            bail!("no operator runs in {OPERATOR_NAMESPACE}");
        }
        for pod in running {
            let now = DeleteParams::default().grace_period(0);
            pods.delete(&pod.name_any(), &now).await?;
        }
        Ok(())
    }

    /// Jobs, Deployments and the Service of a namespace as JSON: `[{kind, metadata, spec, status}]`.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn workloads(&self, namespace: &str) -> Result<Vec<Value>> {
        let all = ListParams::default();
        let mut found = Vec::new();
        let jobs: Api<Job> = Api::namespaced(self.client.clone(), namespace);
        for job in jobs.list(&all).await? {
            found.push(serde_json::to_value(job)?);
        }
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), namespace);
        for deployment in deployments.list(&all).await? {
            found.push(serde_json::to_value(deployment)?);
        }
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        for service in services.list(&all).await? {
            found.push(serde_json::to_value(service)?);
        }
        Ok(found)
    }

    /// Names of the PVCs in a namespace.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn volumes(&self, namespace: &str) -> Result<Vec<String>> {
        let api: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), namespace);
        Ok(api
            .list(&ListParams::default())
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect())
    }

    /// Creates an object the API server should judge, without keeping it.
    ///
    /// # Errors
    /// With the API server's words when it refuses.
    pub async fn dry_run(&self, model: &Value) -> Result<()> {
        let namespace = model["metadata"]["namespace"]
            .as_str()
            .context("no namespace")?;
        let object: DynamicObject = serde_json::from_value(model.clone())?;
        let params = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        self.models(namespace).create(&params, &object).await?;
        Ok(())
    }

    /// Pods with their states and the last warnings, for a failed scenario's message.
    async fn story(&self, namespace: &str) -> Result<String> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut lines = Vec::new();
        for pod in pods.list(&ListParams::default()).await? {
            let status = serde_json::to_value(&pod.status)?;
            lines.push(format!(
                "pod {}: {} {}",
                pod.name_any(),
                status["phase"],
                status["containerStatuses"]
            ));
        }
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        for event in events
            .list(&ListParams::default())
            .await?
            .items
            .iter()
            .rev()
            .take(15)
        {
            let (reason, message) = (event.reason.as_deref(), event.message.as_deref());
            lines.push(format!(
                "event {}: {}",
                reason.unwrap_or_default(),
                message.unwrap_or_default()
            ));
        }
        Ok(lines.join("\n"))
    }
}

async fn first_node_ip(client: &Client) -> Result<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let addresses = nodes
        .iter()
        .flat_map(|n| n.status.iter().flat_map(|s| s.addresses.iter().flatten()));
    let internal = addresses.into_iter().find(|a| a.type_ == "InternalIP");
    Ok(internal
        .context("no Node has an InternalIP; set KIMI_NODE_IP")?
        .address
        .clone())
}

async fn gone<F: Future<Output = Result<bool>>>(what: &str, is_gone: impl Fn() -> F) -> Result<()> {
    let start = Instant::now();
    while !is_gone().await? {
        if start.elapsed() > Duration::from_secs(120) {
            bail!("{what} did not go within two minutes");
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}
