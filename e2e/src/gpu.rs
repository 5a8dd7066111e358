//! A Node that advertises one GPU, as its device plugin would: what the scheduler and the kubelet count is the
//! number, so that two pods cannot have it at once. No device is behind it. It must know no scenario.

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;

const RESOURCE: &str = "nvidia.com/gpu";
const PRODUCT: &str = "nvidia.com/gpu.product";

/// The Node with the GPU; [`Gpu::withdraw`] takes it off again.
#[derive(Debug)]
pub struct Gpu {
    nodes: Api<Node>,
    node: String,
}

impl Gpu {
    /// Advertises one GPU of `product` (the label's value) on the first Node; `None` on a cluster that is not ours, whose
    /// Nodes are not ours to change either.
    ///
    /// # Errors
    /// When the API server refuses, or the kubelet does not take it over.
    pub async fn advertise(cluster: &Cluster, product: &str) -> Result<Option<Self>> {
        if std::env::var_os("KIMI_NODE_IP").is_none() {
            return Ok(None);
        }
        let nodes: Api<Node> = Api::all(cluster.client.clone());
        let list = nodes.list(&ListParams::default()).await?;
        let node = list.items.first().context("a cluster without Nodes")?;
        let node = node.name_any();
        let gpu = Self { nodes, node };
        gpu.patch(json!(product), json!("1")).await?;
        for _ in 0..100 {
            let node = gpu.nodes.get(&gpu.node).await?;
            let status = node.status.unwrap_or_default();
            let allocatable = status.allocatable.unwrap_or_default();
            if allocatable
                .get(RESOURCE)
                .is_some_and(|count| count.0 == "1")
            {
                return Ok(Some(gpu));
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        bail!(
            "Node {} does not advertise {RESOURCE} within 20 s",
            gpu.node
        )
    }

    /// # Errors
    /// When the API server refuses.
    pub async fn withdraw(self) -> Result<()> {
        self.patch(Value::Null, Value::Null).await
    }

    async fn patch(&self, product: Value, count: Value) -> Result<()> {
        let params = PatchParams::default();
        let label = json!({"metadata": {"labels": {PRODUCT: product}}});
        self.nodes
            .patch(&self.node, &params, &Patch::Merge(label))
            .await?;
        let status =
            json!({"status": {"capacity": {RESOURCE: count}, "allocatable": {RESOURCE: count}}});
        self.nodes
            .patch_status(&self.node, &params, &Patch::Merge(status))
            .await?;
        Ok(())
    }
}
