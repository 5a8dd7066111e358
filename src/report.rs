//! `kimi-operator report`: what a person needs to help with a cluster, as a directory of YAML and logs. It reads with the
//! caller's own rights, asks for no Secret, takes out of what it read whatever looks like one, and stops at a fixed size.
//! It must not know what anything in it means.

mod scrub;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, LogParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::Value;

use self::scrub::{scrub, scrub_text};
use crate::crd::KimiModel;
use crate::names;

/// Objects of one kind and namespace; a cluster of more needs another tool.
const MAX_OBJECTS: u32 = 500;
/// Bytes of one log and of everything together.
const MAX_LOG: usize = 256 << 10;
const MAX_TOTAL: usize = 32 << 20;
/// Lines of one log.
const TAIL: i64 = 1000;
/// Starts of the Node labels that planning reads; the rest of a Node is none of our business.
const NODE_LABELS: [&str; 4] = [
    "nvidia.com/",
    "kubernetes.io/",
    "node.kubernetes.io/",
    "topology.kubernetes.io/",
];

/// A report that could not be written. What could not be read is a line of the report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{} exists: give a directory that does not, so that nothing old is taken for new", .0.display())]
    Exists(PathBuf),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write an object as YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

/// What to look at.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Namespace of the KimiModels; all of them when absent.
    pub namespace: Option<String>,
    /// Namespace of the operator's own pods.
    pub operator_namespace: String,
}

/// Writes the report into `directory`, which must not exist. Returns the bytes written.
///
/// # Errors
/// [`Error`] when the directory cannot be made or written to.
pub async fn write(client: &Client, scope: &Scope, directory: &Path) -> Result<usize, Error> {
    if directory.exists() {
        return Err(Error::Exists(directory.to_owned()));
    }
    let mut bundle = Bundle {
        client,
        directory,
        written: 0,
        notes: Vec::new(),
    };
    bundle.versions().await?;
    bundle.nodes().await?;
    let models: Api<DynamicObject> = match &scope.namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &kind::<KimiModel>()),
        None => Api::all_with(client.clone(), &kind::<KimiModel>()),
    };
    let models = bundle.list("kimimodels.yaml", models, "").await?;
    let namespaces: BTreeSet<String> = models
        .iter()
        .filter_map(|model| model.namespace())
        .chain(scope.namespace.clone())
        .collect();
    let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::FIELD_MANAGER);
    for namespace in &namespaces {
        bundle.owned(namespace, &ours).await?;
    }
    let operator = "app.kubernetes.io/name=kimi-operator";
    let namespace = &scope.operator_namespace;
    bundle.all_of::<Lease>(namespace, "").await?;
    bundle.all_of::<Deployment>(namespace, operator).await?;
    bundle.pods(namespace, operator).await?;
    bundle.finish()
}

fn kind<K: Resource<DynamicType = ()>>() -> ApiResource {
    ApiResource::erase::<K>(&())
}

/// A report in the making.
struct Bundle<'a> {
    client: &'a Client,
    directory: &'a Path,
    written: usize,
    /// What is missing, and why.
    notes: Vec<String>,
}

impl Bundle<'_> {
    async fn versions(&mut self) -> Result<(), Error> {
        let server = match self.client.apiserver_version().await {
            Ok(info) => format!("{} ({})", info.git_version, info.platform),
            Err(error) => format!("unknown: {error}"),
        };
        let text = format!(
            "kimi-operator: {}\nkubernetes: {server}\ntime: {}\n",
            env!("CARGO_PKG_VERSION"),
            jiff::Timestamp::now()
        );
        self.put("versions.yaml", &text)
    }

    /// Names, the labels that planning reads, what can be allocated, and conditions.
    async fn nodes(&mut self) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let nodes = match api.list(&ListParams::default().limit(MAX_OBJECTS)).await {
            Ok(nodes) => nodes,
            Err(error) => return self.note("nodes.yaml", &error.to_string()),
        };
        let mut text = String::new();
        for node in nodes {
            let relevant = |key: &str| NODE_LABELS.iter().any(|start| key.starts_with(start));
            let labels = node.labels().iter().filter(|(key, _)| relevant(key));
            let status = node.status.as_ref();
            let conditions = status.and_then(|status| status.conditions.as_ref());
            let conditions = conditions.into_iter().flatten();
            let shown = serde_json::json!({
                "name": node.name_any(),
                "labels": labels.collect::<std::collections::BTreeMap<_, _>>(),
                "taints": node.spec.as_ref().and_then(|spec| spec.taints.clone()),
                "unschedulable": node.spec.as_ref().and_then(|spec| spec.unschedulable),
                "allocatable": status.and_then(|status| status.allocatable.clone()),
                "conditions": conditions.map(|c| format!("{}={}", c.type_, c.status)).collect::<Vec<_>>(),
                "kubelet": status.and_then(|status| status.node_info.as_ref()).map(|info| info.kubelet_version.clone()),
            });
            text += &format!("---\n{}", serde_yaml::to_string(&shown)?);
        }
        self.put("nodes.yaml", &text)
    }

    /// Everything in a namespace that carries our label, its events and its logs.
    async fn owned(&mut self, namespace: &str, ours: &str) -> Result<(), Error> {
        self.all_of::<Job>(namespace, ours).await?;
        self.all_of::<Deployment>(namespace, ours).await?;
        self.all_of::<Service>(namespace, ours).await?;
        self.all_of::<EndpointSlice>(namespace, ours).await?;
        self.all_of::<PersistentVolumeClaim>(namespace, ours)
            .await?;
        self.all_of::<Event>(namespace, "").await?;
        self.pods(namespace, ours).await
    }

    async fn all_of<K>(
        &mut self,
        namespace: &str,
        selector: &str,
    ) -> Result<Vec<DynamicObject>, Error>
    where
        K: Resource<DynamicType = ()>,
    {
        let kind = kind::<K>();
        let path = format!("{namespace}/{}.yaml", kind.plural);
        let api = Api::namespaced_with(self.client.clone(), namespace, &kind);
        self.list(&path, api, selector).await
    }

    /// Writes every object to one file, scrubbed. An answer that is refused is noted.
    async fn list(
        &mut self,
        path: &str,
        api: Api<DynamicObject>,
        selector: &str,
    ) -> Result<Vec<DynamicObject>, Error> {
        let params = ListParams::default().limit(MAX_OBJECTS).labels(selector);
        let objects = match api.list(&params).await {
            Ok(objects) => objects,
            Err(error) => {
                self.note(path, &error.to_string())?;
                return Ok(Vec::new());
            }
        };
        if objects
            .metadata
            .continue_
            .as_deref()
            .is_some_and(|more| !more.is_empty())
        {
            self.note(path, &format!("only the first {MAX_OBJECTS} are here"))?;
        }
        let mut text = String::new();
        for object in &objects.items {
            // Writing an object that was read from JSON as JSON does not fail.
            let mut value = serde_json::to_value(object).unwrap_or(Value::Null);
            scrub(&mut value);
            text += &format!("---\n{}", serde_yaml::to_string(&value)?);
        }
        self.put(path, &text)?;
        Ok(objects.items)
    }

    /// Pods, and the ends of their containers' logs, of this run and the one before.
    async fn pods(&mut self, namespace: &str, selector: &str) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        for pod in self.all_of::<Pod>(namespace, selector).await? {
            let name = pod.name_any();
            let containers = pod
                .data
                .pointer("/spec/containers")
                .and_then(Value::as_array);
            let containers: Vec<String> = containers
                .into_iter()
                .flatten()
                .filter_map(|container| container["name"].as_str().map(str::to_owned))
                .collect();
            let statuses = pod
                .data
                .pointer("/status/containerStatuses")
                .and_then(Value::as_array);
            let restarted = statuses.into_iter().flatten().any(|status| {
                status["restartCount"]
                    .as_i64()
                    .is_some_and(|count| count > 0)
            });
            for container in containers {
                for previous in [false, true] {
                    if previous && !restarted {
                        continue;
                    }
                    let suffix = if previous { ".previous" } else { "" };
                    let path = format!("{namespace}/logs/{name}/{container}{suffix}.log");
                    let params = LogParams {
                        container: Some(container.clone()),
                        previous,
                        tail_lines: Some(TAIL),
                        limit_bytes: i64::try_from(MAX_LOG).ok(),
                        timestamps: true,
                        ..LogParams::default()
                    };
                    match api.logs(&name, &params).await {
                        Ok(log) => self.put(&path, &scrub_text(&log))?,
                        Err(error) => self.note(&path, &error.to_string())?,
                    }
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, path: &str, why: &str) -> Result<(), Error> {
        self.notes.push(format!("{path}: {}", scrub_text(why)));
        Ok(())
    }

    /// Writes one file, as long as there is room.
    fn put(&mut self, path: &str, text: &str) -> Result<(), Error> {
        if self.written + text.len() > MAX_TOTAL {
            return self.note(path, "left out: the report is full");
        }
        self.written += text.len();
        let path = self.directory.join(path);
        let failed = |source| Error::Write {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::write(&path, text).map_err(failed)
    }

    fn finish(mut self) -> Result<usize, Error> {
        let missing = std::mem::take(&mut self.notes);
        let mut text =
            "Secrets were not asked for; values that look like one were replaced by [removed].\n"
                .to_owned();
        for note in missing {
            text += &format!("missing: {note}\n");
        }
        // Said even when the report is full.
        self.written = self.written.min(MAX_TOTAL - text.len().min(MAX_TOTAL));
        self.put("README.txt", &text)?;
        Ok(self.written)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
