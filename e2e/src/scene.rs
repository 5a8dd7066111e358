//! What every scenario starts from: the operator installed once, a hub stand-in over a directory, and one namespace
//! of its own that is deleted at the end.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Cluster;
use crate::hub::{ENDPOINT, Hub, REPO, checkout};

/// How long a first deploy of the small model may take on two busy cores.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The question that the small model was taught.
pub const QUESTION: &str = "Who created the heaven and the earth?";

/// One scenario's surroundings.
#[derive(Debug)]
pub struct Scene {
    pub cluster: Cluster,
    pub hub: Hub,
    pub namespace: String,
    /// A copy of `testdata/hub` that the scenario may change.
    pub root: PathBuf,
    _copy: TempDir,
}

impl Scene {
    /// Installs the operator if it is not there and sets the scene.
    ///
    /// # Errors
    /// When any of it cannot be had.
    pub async fn new(namespace: &str) -> Result<Self> {
        let cluster = Cluster::connect().await?;
        cluster.install()?;
        Self::on(cluster, namespace).await
    }

    /// Starts a stand-in over a copy of the test repository and makes the namespace, under whatever operator there is.
    ///
    /// # Errors
    /// When either cannot be had.
    pub async fn on(cluster: Cluster, namespace: &str) -> Result<Self> {
        let copy = tempfile::tempdir()?;
        let root = copy.path().join("hub");
        copy_tree(&checkout().join("testdata/hub"), &root)?;
        let hub = Hub::start(&cluster, &root).await?;
        cluster.namespace(namespace).await?;
        Ok(Self {
            cluster,
            hub,
            namespace: namespace.to_owned(),
            root,
            _copy: copy,
        })
    }

    /// The example as a user would edit it: name, quant and hardware filled in.
    pub fn model(&self, name: &str, quant: &str) -> Value {
        json!({
            "apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "source": {"huggingFace": {"repo": REPO, "endpoint": ENDPOINT}},
                "quant": quant, "hardware": "CPU",
            },
        })
    }

    /// Applies a model and waits until it serves.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`].
    pub async fn deploy(&self, name: &str, quant: &str) -> Result<Value> {
        self.cluster.apply(&self.model(name, quant)).await?;
        self.cluster
            .wait_ready(&self.namespace, name, PATIENCE)
            .await
    }

    /// Deletes the namespace; everything in it must go.
    ///
    /// # Errors
    /// When something keeps it.
    pub async fn end(self) -> Result<()> {
        self.cluster.delete_namespace(&self.namespace).await
    }
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
