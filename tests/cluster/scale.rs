//! Many KimiModels at a steady rate under the operator's own binary, with a scripted node: how soon a Job follows an
//! apply, what the process weighs, and that it writes nothing once all is well. `KIMI_LONG` means the full thousand and
//! ten idle minutes; otherwise fewer and shorter, and only what does not depend on the machine is asserted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::batch::v1::Job;
use kimi_operator::crd::KimiModel;
use kimi_operator::names;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kubelet::{self, Kubelet};
use crate::lab::{self, Kind, model};

/// Applies of a second.
const RATE: u32 = 5;

/// How much of it there is to do.
struct Size {
    models: usize,
    idle: Duration,
    /// Where results go, when it is the whole.
    directory: Option<PathBuf>,
}

impl Size {
    fn of_environment() -> Self {
        let directory = std::env::var_os("KIMI_LONG").map(PathBuf::from);
        match directory {
            Some(_) => Self {
                models: 1000,
                idle: Duration::from_mins(10),
                directory,
            },
            None => Self {
                models: 50,
                idle: Duration::from_secs(10),
                directory,
            },
        }
    }
}

/// The operator's process; it ends with this.
struct Operator {
    child: Child,
    address: String,
}

impl Operator {
    /// The binary that `KIMI_OPERATOR_BIN` names, or the one that was built with this test.
    async fn start(namespace: &str, kubeconfig: &Path) -> Self {
        let program = std::env::var_os("KIMI_OPERATOR_BIN")
            .unwrap_or_else(|| env!("CARGO_BIN_EXE_kimi-operator").into());
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let child = Command::new(program)
            .args(["run", "--worker-image", "registry.invalid/kimi-worker:none"])
            .args(["--watch-namespace", namespace, "--listen", &address])
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let operator = Self { child, address };
        let start = Instant::now();
        while !operator
            .get("/readyz")
            .await
            .is_some_and(|text| text.contains("200 OK"))
        {
            assert!(start.elapsed() < lab::PATIENCE, "the operator is not ready");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        operator
    }

    async fn get(&self, path: &str) -> Option<String> {
        let mut stream = TcpStream::connect(&self.address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        Some(text)
    }

    /// Writes sent so far.
    async fn writes(&self) -> u64 {
        let metrics = self.get("/metrics").await.unwrap();
        let lines = metrics.lines().filter(|line| {
            line.starts_with("kimi_operator_api_writes_total") && !line.contains("Lease")
        });
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// Resident memory, MiB.
    fn resident(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Already gone is as good as ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `KUBECONFIG` for the operator's account, whose own namespace, where its Lease is, is the models'.
fn kubeconfig(namespace: &str) -> tempfile::NamedTempFile {
    let own = std::env::var("KUBECONFIG").unwrap();
    let mut config: Value = serde_yaml::from_str(&std::fs::read_to_string(own).unwrap()).unwrap();
    config["users"][0]["user"]["as"] = json!(format!("system:serviceaccount:{namespace}:operator"));
    config["contexts"][0]["context"]["namespace"] = json!(namespace);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_yaml::to_string(&config).unwrap()).unwrap();
    file
}

/// When each model's first Job was seen.
fn watch_jobs(jobs: Api<Job>) -> Arc<Mutex<BTreeMap<String, Instant>>> {
    let seen: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        // Without a pause between errors, this would never end once the client is gone.
        let events = watcher(jobs, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events);
        while let Some(event) = events.next().await {
            if let Ok(watcher::Event::Apply(job) | watcher::Event::InitApply(job)) = event
                && let Some(model) = job.labels().get(names::LABEL_INSTANCE)
            {
                noted
                    .lock()
                    .unwrap()
                    .entry(model.clone())
                    .or_insert_with(Instant::now);
            }
        }
    });
    seen
}

/// Models that are ready at their generation.
async fn ready(models: &Api<KimiModel>) -> usize {
    let list = models.list(&ListParams::default()).await.unwrap().items;
    let is_ready = |model: &&KimiModel| {
        let conditions = model.status.iter().flat_map(|status| &status.conditions);
        conditions
            .into_iter()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    };
    list.iter().filter(is_ready).count()
}

async fn apply_all(client: &Client, namespace: &str, count: usize) -> BTreeMap<String, Instant> {
    let models: Api<KimiModel> = Api::namespaced(client.clone(), namespace);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut applied = BTreeMap::new();
    for index in 0..count {
        ticks.tick().await;
        let name = format!("reader-{index:04}");
        let mut object = model(json!({}));
        object["metadata"]["name"] = json!(name);
        let at = Instant::now();
        let params = PatchParams::apply("kimi-operator-test").force();
        models
            .patch(&name, &params, &Patch::Apply(&object))
            .await
            .unwrap();
        applied.insert(name, at);
    }
    applied
}

#[tokio::test(flavor = "multi_thread")]
async fn many_models_at_a_steady_rate() {
    let Some(client) = lab::connect(Kind::ControlPlane).await else {
        return;
    };
    let size = Size::of_environment();
    let results = size
        .directory
        .as_ref()
        .map(|directory| directory.join("scale.txt"));
    if let Some(known) = results
        .as_ref()
        .and_then(|file| std::fs::read_to_string(file).ok())
    {
        eprintln!("known already:\n{known}");
        return;
    }
    let namespace = format!("kimi-scale-{}", std::process::id());
    lab::operator_account(&client, &namespace).await;
    kubelet::join(&client).await;
    let account = kubeconfig(&namespace);
    let operator = Operator::start(&namespace, account.path()).await;
    let idle = operator.resident();
    let seen = watch_jobs(Api::namespaced(client.clone(), &namespace));
    let node = tokio::spawn(Kubelet::new(&client, Some(&namespace)).follow());
    let applied = apply_all(&client, &namespace, size.models).await;

    let models: Api<KimiModel> = Api::namespaced(client.clone(), &namespace);
    let start = Instant::now();
    while ready(&models).await < size.models {
        let patience = lab::PATIENCE + Duration::from_secs(1) * u32::try_from(size.models).unwrap();
        assert!(
            start.elapsed() < patience,
            "{} of {} ready",
            ready(&models).await,
            size.models
        );
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    node.abort();
    // The last statuses are written.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let (before, full) = (operator.writes().await, operator.resident());
    tokio::time::sleep(size.idle).await;
    let written = operator.writes().await - before;

    let seen = seen.lock().unwrap().clone();
    let mut waits: Vec<f64> = applied
        .iter()
        .map(|(name, at)| seen[name].saturating_duration_since(*at).as_secs_f64() * 1000.0)
        .collect();
    waits.sort_by(f64::total_cmp);
    let rank = |share: f64| waits[((waits.len() - 1) as f64 * share).round() as usize];
    let mut report = String::new();
    writeln!(report, "{} models at {RATE} applies/s", size.models).unwrap();
    writeln!(
        report,
        "apply to Job: p50 {:.0} ms, p99 {:.0} ms, longest {:.0} ms",
        rank(0.5),
        rank(0.99),
        rank(1.0)
    )
    .unwrap();
    writeln!(
        report,
        "operator's RSS: {idle:.1} MiB idle, {full:.1} MiB with all of them served"
    )
    .unwrap();
    writeln!(
        report,
        "writes of the operator until all were served: {:.1} per model",
        before as f64 / size.models as f64
    )
    .unwrap();
    writeln!(
        report,
        "writes in {} idle seconds: {written}",
        size.idle.as_secs()
    )
    .unwrap();
    eprintln!("{report}");
    if let Some(file) = results {
        std::fs::write(file, &report).unwrap();
    }
    drop(operator);
    models
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    assert_eq!(written, 0, "an idle operator writes nothing");
}
