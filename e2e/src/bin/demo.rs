//! The main job from nothing, told as it happens: apply twelve lines, ask, edit the quant while clients keep asking,
//! ask again, print the outage; then the same edit where one GPU has room for one server only.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::clients::{Load, Mode, ask};
use e2e::cluster::{Cluster, condition, yaml};
use e2e::gpu::Gpu;
use e2e::hub::{Hub, checkout};
use e2e::scene::{PATIENCE, QUESTION};
use serde_json::json;

const NAMESPACE: &str = "llm";
const NAME: &str = "kimi-tiny";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let cluster = Cluster::connect().await?;
    println!("== helm install kimi-operator");
    cluster.install()?;
    let hub = Hub::start(&cluster, &checkout().join("testdata/hub")).await?;
    cluster.namespace(NAMESPACE).await?;

    let text = std::fs::read_to_string(checkout().join("examples/kimi-tiny.yaml"))?;
    println!("== kubectl apply -f examples/kimi-tiny.yaml\n{text}");
    let start = Instant::now();
    cluster.apply(&yaml(&text)?).await?;
    follow(&cluster, start).await?;
    let address = cluster.address(NAMESPACE, NAME).await?;
    let answer = ask(&address, QUESTION, Mode::Fresh).await?;
    println!(
        "Q: {QUESTION}\nA: {}   [{}]\n",
        answer.text.trim(),
        answer.weights
    );

    println!("== kubectl edit: quant Q4_K_M -> Q8_0, while three clients keep asking");
    let load = Load::start(
        &address,
        QUESTION,
        &[Mode::KeepAlive, Mode::Fresh, Mode::Streaming],
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    cluster
        .edit(NAMESPACE, NAME, &json!({"quant": "Q8_0"}))
        .await?;
    let model = follow(&cluster, start).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tally = load.stop().await;
    let answer = ask(&address, QUESTION, Mode::Fresh).await?;
    println!(
        "Q: {QUESTION}\nA: {}   [{}]\n",
        answer.text.trim(),
        answer.weights
    );

    let outage = &model["status"]["lastSwitch"]["outageSeconds"];
    println!(
        "requests during the edit: {} answered, {} failed",
        tally.ok,
        tally.failures.len()
    );
    println!(
        "answers by weights: {:?}; longest gap between answers: {:?}",
        tally.by_weights, tally.longest_gap
    );
    println!("outage measured by the operator: {outage} s");
    for failure in tally.failures.iter().take(3) {
        println!("  {failure}");
    }
    on_one_gpu(&cluster, &address).await?;
    cluster
        .delete_namespace(NAMESPACE)
        .await
        .context("cleaning up")?;
    drop(hub);
    ensure!(
        tally.failures.is_empty(),
        "{} requests failed during the edit",
        tally.failures.len()
    );
    Ok(())
}

/// The edit again with a GPU that only one server can have: the old one has to end first. It answers until it does.
async fn on_one_gpu(cluster: &Cluster, address: &str) -> Result<()> {
    println!(
        "\n== the Node advertises one GPU; kubectl edit: hardware CPU -> T4, cpuFallback Allow"
    );
    let Some(gpu) = Gpu::advertise(cluster, "Tesla-T4").await? else {
        println!("skipped: the Nodes of this cluster are not ours to change");
        return Ok(());
    };
    let start = Instant::now();
    let change = json!({"hardware": "T4", "serving": {"cpuFallback": "Allow"}});
    cluster.edit(NAMESPACE, NAME, &change).await?;
    follow(cluster, start).await?;
    println!(
        "== kubectl edit: quant Q8_0 -> Q4_K_M, with room for one server, while a client keeps asking"
    );
    let load = Load::start(address, QUESTION, &[Mode::Fresh]);
    let start = Instant::now();
    cluster
        .edit(NAMESPACE, NAME, &json!({"quant": "Q4_K_M"}))
        .await?;
    let model = follow(cluster, start).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tally = load.stop().await;
    let status = &model["status"];
    println!(
        "one GPU: {:.1} s between two answers, an outage of {} s by the operator's account; the new server's start and \
         self-test took {} s",
        tally.longest_gap.as_secs_f64(),
        status["lastSwitch"]["outageSeconds"],
        status["timings"]["loadSeconds"]
    );
    gpu.withdraw().await
}

/// Prints a line, as `kubectl get -w` would, whenever what it shows changes; ends when the model is settled.
async fn follow(cluster: &Cluster, start: Instant) -> Result<serde_json::Value> {
    let mut last = String::new();
    loop {
        let model = cluster.get(NAMESPACE, NAME).await?;
        let (ready, reason, _) = condition(&model, "Ready");
        let status = &model["status"];
        let (active, progress) = (status["activeQuant"].as_str(), status["progress"].as_str());
        let step = condition(&model, "Reconciling").1;
        let line = format!(
            "active={} progress={} ready={ready} reason={reason} step={step}",
            active.unwrap_or("-"),
            progress.unwrap_or("-")
        );
        if line != last {
            println!("  {:>5.1} s  {line}", start.elapsed().as_secs_f64());
            last = line;
        }
        let settled = status["observedGeneration"] == model["metadata"]["generation"]
            && ready == "True"
            && condition(&model, "Reconciling").0 != "True";
        if settled {
            return Ok(model);
        }
        ensure!(
            start.elapsed() < PATIENCE,
            "not settled within {PATIENCE:?}: {status}"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
