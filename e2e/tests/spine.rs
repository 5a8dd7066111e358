//! The spine on a real control plane: first deploy, quant edit under load, errors that heal, a killed fetch, and
//! nothing refetched when status and Jobs are gone. Run through `e2e/cluster/with-cluster.sh`, one at a time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::clients::{Load, Mode, ask};
use e2e::cluster::condition;
use e2e::hub::REPO;
use e2e::scene::{PATIENCE, QUESTION, Scene};
use fetch::ledger::piece_bytes;
use serde_json::json;

/// Requests a quant edit must survive.
const REQUESTS: usize = 1000;
/// Connections of a fetch: a kill may cost one piece on each.
const CONNECTIONS: u64 = 8;
/// What the inspect Job reads of the shards' headers, at most.
const HEADERS: u64 = 1 << 20;

#[tokio::test]
async fn a_first_deploy_answers() -> Result<()> {
    let scene = Scene::new("first-deploy").await?;
    let start = Instant::now();
    let model = scene.deploy("kimi-tiny", "Q4_K_M").await?;
    println!("apply to Ready: {:.1} s", start.elapsed().as_secs_f64());

    let status = &model["status"];
    ensure!(status["activeQuant"] == "Q4_K_M", "{status}");
    ensure!(status["artifact"]["shards"] == 3, "{status}");
    ensure!(status["plan"]["fits"] == "yes", "{status}");
    ensure!(
        status["artifact"]["downloadedBytes"] == status["artifact"]["bytes"],
        "{status}"
    );

    let address = scene.cluster.address(&scene.namespace, "kimi-tiny").await?;
    for mode in [Mode::Fresh, Mode::Streaming] {
        let answer = ask(&address, QUESTION, mode).await?;
        ensure!(answer.text.contains("God"), "{mode:?}: {}", answer.text);
        ensure!(answer.weights.starts_with("Q4_K_M-"), "{}", answer.weights);
    }
    scene.end().await
}

#[tokio::test]
async fn a_quant_edit_fails_no_request() -> Result<()> {
    let scene = Scene::new("quant-edit").await?;
    scene.deploy("kimi-tiny", "Q4_K_M").await?;
    let address = scene.cluster.address(&scene.namespace, "kimi-tiny").await?;
    let load = Load::start(
        &address,
        QUESTION,
        &[Mode::KeepAlive, Mode::Fresh, Mode::Streaming],
    );

    tokio::time::sleep(Duration::from_secs(1)).await;
    scene
        .cluster
        .edit(&scene.namespace, "kimi-tiny", &json!({"quant": "Q8_0"}))
        .await?;
    let model = scene
        .cluster
        .wait(
            (&scene.namespace, "kimi-tiny"),
            "switch to Q8_0",
            PATIENCE,
            |m| m["status"]["activeQuant"] == "Q8_0" && condition(m, "Reconciling").0 != "True",
        )
        .await?;
    // The new weights must carry the load too, not only take over.
    let enough = REQUESTS.max(load.count() + REQUESTS / 4);
    let start = Instant::now();
    while load.count() < enough && start.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let tally = load.stop().await;
    println!(
        "requests {} by weights {:?}, longest gap {:?}",
        tally.total(),
        tally.by_weights,
        tally.longest_gap
    );
    println!("lastSwitch {}", model["status"]["lastSwitch"]);
    ensure!(
        tally.failures.is_empty(),
        "{} failures, first: {:?}",
        tally.failures.len(),
        &tally.failures[..1]
    );
    ensure!(tally.ok >= REQUESTS, "only {} requests", tally.ok);
    ensure!(
        tally.by_weights.len() == 2,
        "answers of one kind only: {:?}",
        tally.by_weights
    );
    ensure!(
        model["status"]["lastSwitch"]["outageSeconds"] == 0,
        "{}",
        model["status"]["lastSwitch"]
    );
    scene.end().await
}

#[tokio::test]
async fn an_unknown_quant_is_named_and_correcting_it_heals() -> Result<()> {
    let scene = Scene::new("unknown-quant").await?;
    scene.deploy("kimi-tiny", "Q4_K_M").await?;
    let address = scene.cluster.address(&scene.namespace, "kimi-tiny").await?;

    scene
        .cluster
        .edit(&scene.namespace, "kimi-tiny", &json!({"quant": "Q9_X"}))
        .await?;
    let key = (scene.namespace.as_str(), "kimi-tiny");
    let model = scene.cluster.wait(key, "QuantNotFound", PATIENCE, |m| {
        condition(m, "Stalled").1 == "QuantNotFound"
    });
    let model = model.await?;
    let (_, _, message) = condition(&model, "Stalled");
    ensure!(
        message.contains("Q4_K_M") && message.contains("Q8_0"),
        "does not name what there is: {message}"
    );
    ensure!(
        condition(&model, "Ready").0 == "True",
        "the old weights must keep serving: {}",
        model["status"]
    );
    ask(&address, QUESTION, Mode::Fresh).await?;

    scene
        .cluster
        .edit(&scene.namespace, "kimi-tiny", &json!({"quant": "Q8_0"}))
        .await?;
    let done = |m: &serde_json::Value| {
        m["status"]["activeQuant"] == "Q8_0" && condition(m, "Stalled").0 != "True"
    };
    scene
        .cluster
        .wait(key, "switch to Q8_0", PATIENCE, done)
        .await?;
    ensure!(
        ask(&address, QUESTION, Mode::Fresh)
            .await?
            .weights
            .starts_with("Q8_0-")
    );
    scene.end().await
}

#[tokio::test]
async fn a_fetch_killed_with_kill_9_resumes() -> Result<()> {
    let scene = Scene::new("killed-fetch").await?;
    // Slow enough that the kill lands in the middle, whatever the machine.
    scene
        .hub
        .faults(&json!({"bytesPerSecond": 2_000_000}))
        .await?;
    scene
        .cluster
        .apply(&scene.model("kimi-tiny", "Q8_0"))
        .await?;
    let key = (scene.namespace.as_str(), "kimi-tiny");
    let half = |m: &serde_json::Value| {
        m["status"]["artifact"]["downloadedBytes"].as_u64() > Some(4_000_000)
    };
    let model = scene
        .cluster
        .wait(key, "some progress", PATIENCE, half)
        .await?;
    ensure!(
        condition(&model, "Ready").0 == "Unknown",
        "{}",
        model["status"]
    );
    let bytes = model["status"]["artifact"]["bytes"].as_u64().unwrap();

    // In a cluster of our own the process is ours to kill; in another, its pod.
    let killed = if std::env::var_os("KIMI_NODE_IP").is_some() {
        kill_fetch()?
    } else {
        scene.cluster.kill_pods(&scene.namespace, "fetch").await?
    };
    ensure!(killed > 0, "nothing was found to kill");
    let model = scene
        .cluster
        .wait_ready(&scene.namespace, "kimi-tiny", PATIENCE)
        .await?;
    let served = scene.hub.bytes_served().await?;
    println!(
        "artifact {bytes} bytes, served {served}: {} again",
        served.saturating_sub(bytes)
    );
    let piece = piece_bytes(bytes / 3, 8);
    ensure!(
        served <= bytes + HEADERS + piece * CONNECTIONS,
        "{served} bytes served for {bytes}, pieces of {piece}"
    );
    ensure!(
        model["status"]["artifact"]["downloadedBytes"].as_u64() == Some(bytes),
        "{}",
        model["status"]
    );
    scene.end().await
}

/// Kills every `kimi fetch` process of the cluster's own process namespace with SIGKILL.
fn kill_fetch() -> Result<usize> {
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let cmdline = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let mut words = cmdline.split(|b| *b == 0);
        let is_kimi = words.next().is_some_and(|w| w.ends_with(b"kimi"));
        if is_kimi && words.next() == Some(b"fetch") {
            let pid = entry.file_name().to_string_lossy().into_owned();
            killed += usize::from(
                std::process::Command::new("kill")
                    .args(["-9", &pid])
                    .status()?
                    .success(),
            );
        }
    }
    Ok(killed)
}

#[tokio::test]
async fn hardware_that_cannot_hold_the_plan_is_refused_with_numbers() -> Result<()> {
    let scene = Scene::new("refused").await?;
    let mut model = scene.model("big", "UD-Q4_K_XL");
    model["spec"] = json!({"model": "Kimi-K2-Instruct", "quant": "UD-Q4_K_XL", "hardware": "T4"});
    scene.cluster.apply(&model).await?;
    let key = (scene.namespace.as_str(), "big");
    let model = scene
        .cluster
        .wait(key, "refusal", PATIENCE, |m| {
            condition(m, "Planned").0 == "False"
        })
        .await?;
    let (_, reason, message) = condition(&model, "Planned");
    println!("{reason}: {message}");
    ensure!(
        message.contains("18") && message.contains("16"),
        "no numbers: {message}"
    );
    ensure!(
        message.contains("UD-"),
        "does not name a quant that fits: {message}"
    );
    ensure!(
        model["status"]["plan"]["fits"] == "no",
        "{}",
        model["status"]
    );
    ensure!(
        scene.cluster.volumes(&scene.namespace).await?.is_empty(),
        "a refused plan must touch nothing"
    );
    scene.end().await
}

#[tokio::test]
async fn status_and_finished_jobs_may_be_deleted() -> Result<()> {
    let scene = Scene::new("forgetful").await?;
    let before = scene.deploy("kimi-tiny", "Q4_K_M").await?;
    scene.hub.reset().await?;

    ensure!(
        scene.cluster.delete_finished_jobs(&scene.namespace).await? >= 1,
        "no finished Job to delete"
    );
    scene
        .cluster
        .wipe_status(&scene.namespace, "kimi-tiny")
        .await?;
    let after = scene
        .cluster
        .wait_ready(&scene.namespace, "kimi-tiny", PATIENCE)
        .await?;
    // Long enough for a mistaken Job to start and fetch.
    tokio::time::sleep(Duration::from_secs(8)).await;

    ensure!(
        scene.hub.bytes_served().await? == 0,
        "something was fetched again"
    );
    ensure!(
        after["status"]["activeQuant"] == before["status"]["activeQuant"],
        "{}",
        after["status"]
    );
    ensure!(
        after["status"]["artifact"]["commit"] == before["status"]["artifact"]["commit"],
        "{}",
        after["status"]
    );
    ensure!(scene.cluster.volumes(&scene.namespace).await?.len() == 1);
    scene.end().await
}

#[tokio::test]
async fn gpu_hardware_on_a_node_without_one_says_so() -> Result<()> {
    let scene = Scene::new("no-gpu").await?;
    let mut model = scene.model("kimi-tiny", "Q4_K_M");
    model["spec"]["hardware"] = json!("T4");
    scene.cluster.apply(&model).await?;
    let key = (scene.namespace.as_str(), "kimi-tiny");
    let refused = scene
        .cluster
        .wait(key, "a word about the GPU", PATIENCE, |m| {
            condition(m, "Stalled").0 == "True"
        });
    let refused = refused.await?;
    println!("{:?}", condition(&refused, "Stalled"));

    scene
        .cluster
        .edit(
            &scene.namespace,
            "kimi-tiny",
            &json!({"serving": {"cpuFallback": "Allow"}}),
        )
        .await?;
    let model = scene
        .cluster
        .wait_ready(&scene.namespace, "kimi-tiny", PATIENCE)
        .await?;
    ensure!(
        condition(&model, "Accelerated").0 == "False",
        "{}",
        model["status"]
    );
    scene.end().await
}

#[tokio::test]
async fn the_api_server_refuses_what_the_schema_forbids() -> Result<()> {
    let scene = Scene::new("schema").await?;
    let good = scene.model("kimi-tiny", "Q4_K_M");
    scene.cluster.dry_run(&good).await?;
    let cases = [
        ("/spec/quant", json!("../../etc/passwd")),
        ("/spec/quant", json!("")),
        ("/spec/hardware", json!("RTX")),
        ("/spec/source/huggingFace/repo", json!("no-owner")),
        (
            "/metadata/name",
            json!("a-name-that-is-far-too-long-for-what-we-derive-from-it"),
        ),
    ];
    for (pointer, value) in cases {
        let mut bad = good.clone();
        *bad.pointer_mut(pointer).unwrap() = value.clone();
        ensure!(
            scene.cluster.dry_run(&bad).await.is_err(),
            "{pointer} = {value} was accepted"
        );
    }
    let mut neither = good.clone();
    neither["spec"].as_object_mut().unwrap().remove("source");
    ensure!(
        scene.cluster.dry_run(&neither).await.is_err(),
        "neither model nor source was accepted"
    );
    scene.end().await
}

#[tokio::test]
async fn hub_errors_become_conditions_and_heal() -> Result<()> {
    let scene = Scene::new("hub-errors").await?;
    let key = (scene.namespace.as_str(), "kimi-tiny");
    let mut model = scene.model("kimi-tiny", "Q4_K_M");
    model["spec"]["source"]["huggingFace"]["repo"] = json!("kimi-operator/No-Such-Repo");
    scene.cluster.apply(&model).await?;
    scene
        .cluster
        .wait(key, "RepoNotFound", PATIENCE, |m| {
            condition(m, "Stalled").1 == "RepoNotFound"
        })
        .await?;

    model["spec"]["source"]["huggingFace"]["repo"] = json!(REPO);
    model["spec"]["source"]["huggingFace"]["tokenSecretRef"] =
        json!({"name": "not-there", "key": "token"});
    scene.cluster.apply(&model).await?;
    let missing = scene.cluster.wait(key, "SecretMissing", PATIENCE, |m| {
        ["Stalled", "Reconciling", "ArtifactReady", "Planned"]
            .iter()
            .any(|c| condition(m, c).1 == "SecretMissing")
    });
    missing.await?;

    model["spec"]["source"]["huggingFace"]
        .as_object_mut()
        .unwrap()
        .remove("tokenSecretRef");
    scene.cluster.apply(&model).await?;
    scene
        .cluster
        .wait_ready(&scene.namespace, "kimi-tiny", PATIENCE)
        .await?;
    scene.end().await
}
