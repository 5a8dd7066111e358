//! The hub stand-in as a process of its own beside the cluster, reachable from pods through a Service without a
//! selector. Knows its command line and admin API, not how it serves.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cluster::Cluster;

/// Name that pods resolve; `examples/kimi-tiny.yaml` uses it.
pub const ENDPOINT: &str = "http://hub.hub.svc.cluster.local:8088";
const CDN: &str = "http://hub.hub.svc.cluster.local:8089";
/// The repository under `testdata/hub`.
pub const REPO: &str = "kimi-operator/Kimi-Tiny-GGUF";

/// A running stand-in; it ends when this is dropped.
#[derive(Debug)]
pub struct Hub {
    child: Child,
    admin: String,
}

/// The checkout's root, wherever the test binary runs.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

fn binary(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| checkout().join("target"), PathBuf::from);
    target.join("release").join(name)
}

impl Hub {
    /// Starts the stand-in over `root` on the node's address and publishes it to pods.
    ///
    /// # Errors
    /// When the binary is not built, or does not answer within 10 s.
    pub async fn start(cluster: &Cluster, root: &Path) -> Result<Self> {
        let program = binary("testhub");
        let ip = &cluster.node_ip;
        let child = Command::new(&program)
            .args(["--root".as_ref(), root.as_os_str()])
            .args(["--listen", &format!("{ip}:8088"), "--public-url", ENDPOINT])
            .args(["--cdn-listen", &format!("{ip}:8089"), "--cdn-url", CDN])
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| {
                format!(
                    "starting {}: build it with `make images`",
                    program.display()
                )
            })?;
        let hub = Self {
            child,
            admin: format!("http://{ip}:8088/admin"),
        };
        for _ in 0..100 {
            if hub.stats().await.is_ok() {
                cluster.publish_hub().await?;
                return Ok(hub);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!(
            "the hub stand-in at {} did not answer within 10 s",
            hub.admin
        )
    }

    /// Counters since the last [`Hub::reset`].
    ///
    /// # Errors
    /// When the stand-in does not answer.
    pub async fn stats(&self) -> Result<Value> {
        Ok(reqwest::get(format!("{}/stats", self.admin))
            .await?
            .error_for_status()?
            .json()
            .await?)
    }

    /// Bytes of file content sent since the last [`Hub::reset`].
    ///
    /// # Errors
    /// When the stand-in does not answer.
    pub async fn bytes_served(&self) -> Result<u64> {
        let stats = self.stats().await?;
        stats["bytesServed"]
            .as_u64()
            .with_context(|| format!("no bytesServed in {stats}"))
    }

    /// Sets faults (the admin API's JSON), `{}` for none.
    ///
    /// # Errors
    /// When the stand-in refuses them.
    pub async fn faults(&self, faults: &Value) -> Result<()> {
        let url = format!("{}/faults", self.admin);
        reqwest::Client::new()
            .put(url)
            .json(faults)
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }

    /// Counters to zero, faults off.
    ///
    /// # Errors
    /// When the stand-in does not answer.
    pub async fn reset(&self) -> Result<()> {
        reqwest::Client::new()
            .post(format!("{}/reset", self.admin))
            .send()
            .await?
            .error_for_status()?;
        Ok(())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        // Already gone is as good as ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
