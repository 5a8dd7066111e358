//! Transitions that go wrong or have little room, on a real control plane and kubelet: weights that verify and cannot
//! serve, one GPU for two servers, an operator that dies at the worst moments, a pod at its least memory. Run through
//! `e2e/cluster/with-cluster.sh`, one at a time.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::clients::{Load, Mode, Tally, ask};
use e2e::cluster::condition;
use e2e::damage::{self, Damage};
use e2e::gpu::Gpu;
use e2e::scene::{PATIENCE, QUESTION, Scene};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

const NAME: &str = "kimi-tiny";
const MODES: [Mode; 3] = [Mode::KeepAlive, Mode::Fresh, Mode::Streaming];

/// All of them where `KIMI_LONG` is set, else the one that `KIMI_SEED` chooses.
fn sample<T: Copy>(all: &[T]) -> Vec<T> {
    if std::env::var_os("KIMI_LONG").is_some() {
        return all.to_vec();
    }
    let seed = std::env::var("KIMI_SEED").ok();
    let seed: usize = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    vec![all[seed % all.len()]]
}

/// Edits the spec and waits until `done` holds.
async fn edit(
    scene: &Scene,
    change: Value,
    what: &str,
    done: impl Fn(&Value) -> bool,
) -> Result<Value> {
    scene.cluster.edit(&scene.namespace, NAME, &change).await?;
    let key = (scene.namespace.as_str(), NAME);
    scene.cluster.wait(key, what, PATIENCE, done).await
}

fn observed(model: &Value) -> bool {
    model["status"]["observedGeneration"] == model["metadata"]["generation"]
}

fn serves(quant: &str) -> impl Fn(&Value) -> bool {
    move |model| {
        observed(model)
            && model["status"]["activeQuant"] == quant
            && condition(model, "Ready").0 == "True"
            && condition(model, "Reconciling").0 != "True"
    }
}

fn rolled_back(model: &Value) -> bool {
    observed(model)
        && condition(model, "Stalled").1 == "RolledBack"
        && condition(model, "Reconciling").0 != "True"
}

fn said(tally: &Tally, what: &str) -> Result<()> {
    println!(
        "{what}: {} requests, {} failed, longest gap {:?}",
        tally.total(),
        tally.failures.len(),
        tally.longest_gap
    );
    ensure!(tally.failures.is_empty(), "first: {}", tally.failures[0]);
    Ok(())
}

#[tokio::test]
async fn weights_that_verify_and_cannot_serve_are_rolled_back() -> Result<()> {
    let scene = Scene::new("bad-weights").await?;
    let damages = sample(&Damage::ALL);
    for damage in &damages {
        damage::publish(&scene.root, *damage)?;
    }
    scene.deploy(NAME, "Q4_K_M").await?;
    let address = scene.cluster.address(&scene.namespace, NAME).await?;
    let load = Load::start(&address, QUESTION, &MODES);
    for damage in damages {
        let quant = damage.quant();
        let start = Instant::now();
        // An earlier rollback still stands until the edit is seen.
        let model = edit(&scene, json!({"quant": quant}), "rollback", |model| {
            rolled_back(model) && condition(model, "Stalled").2.contains(quant)
        });
        let model = model.await?;
        let status = &model["status"];
        println!(
            "{quant}, after {:.1} s: {}",
            start.elapsed().as_secs_f64(),
            condition(&model, "Stalled").2
        );
        ensure!(condition(&model, "Ready").0 == "True", "{status}");
        ensure!(status["activeQuant"] == "Q4_K_M", "{status}");
        let entry = &status["history"][0];
        ensure!(
            entry["to"] == quant && entry["outcome"] == "RolledBack",
            "{entry}"
        );
        ensure!(entry["outageSeconds"] == 0, "{entry}");
    }
    edit(
        &scene,
        json!({"quant": "Q4_K_M"}),
        "the edit taken back",
        serves("Q4_K_M"),
    )
    .await?;
    let tally = load.stop().await;
    said(&tally, "bad models")?;
    ensure!(tally.by_weights.len() == 1, "{:?}", tally.by_weights);
    scene.end().await
}

#[tokio::test]
async fn on_one_gpu_the_outage_is_the_load_and_a_bad_model_brings_the_old_back() -> Result<()> {
    let scene = Scene::new("one-gpu").await?;
    let Some(gpu) = Gpu::advertise(&scene.cluster, "Tesla-T4").await? else {
        println!("skipped: the Nodes of this cluster are not ours to change");
        return scene.end().await;
    };
    damage::publish(&scene.root, Damage::NanScale)?;
    let mut model = scene.model(NAME, "Q4_K_M");
    model["spec"]["hardware"] = json!("T4");
    model["spec"]["serving"] = json!({"cpuFallback": "Allow"});
    scene.cluster.apply(&model).await?;
    scene
        .cluster
        .wait_ready(&scene.namespace, NAME, PATIENCE)
        .await?;
    let server = scene.cluster.pods(&scene.namespace, "server").await?;
    let requests = serde_json::to_value(&server[0].spec)?;
    let limits = &requests["containers"][0]["resources"]["limits"];
    ensure!(limits["nvidia.com/gpu"] == "1", "{limits}");

    let address = scene.cluster.address(&scene.namespace, NAME).await?;
    let load = Load::start(&address, QUESTION, &[Mode::Fresh]);
    let model = edit(
        &scene,
        json!({"quant": "Q8_0"}),
        "switch to Q8_0",
        serves("Q8_0"),
    )
    .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let tally = load.stop().await;
    let gap = tally.longest_gap.as_secs_f64();
    let status = &model["status"];
    let outage = status["lastSwitch"]["outageSeconds"].as_i64().unwrap_or(0);
    println!(
        "one GPU: {gap:.1} s between two answers, an outage of {outage} s by the operator's account; the new server's start \
         and self-test took {} s",
        status["timings"]["loadSeconds"]
    );
    ensure!(
        outage > 0,
        "two servers had the one GPU: {}",
        status["lastSwitch"]
    );
    let answer = ask(&address, QUESTION, Mode::Fresh).await?;
    ensure!(answer.weights.starts_with("Q8_0-"), "{}", answer.weights);

    let bad = Damage::NanScale.quant();
    let model = edit(
        &scene,
        json!({"quant": bad}),
        "the old server back",
        |model| rolled_back(model) && condition(model, "Ready").0 == "True",
    );
    let model = model.await?;
    let entry = &model["status"]["history"][0];
    println!(
        "one GPU, bad weights: {} of {}, outage {} s",
        entry["outcome"], entry["to"], entry["outageSeconds"]
    );
    ensure!(
        model["status"]["activeQuant"] == "Q8_0",
        "{}",
        model["status"]
    );
    let answer = ask(&address, QUESTION, Mode::Fresh).await?;
    ensure!(answer.weights.starts_with("Q8_0-"), "{}", answer.weights);
    gpu.withdraw().await?;
    scene.end().await
}

/// Moments of a quant edit at which the operator's death would hurt most.
#[derive(Clone, Copy, Debug)]
enum Point {
    Inspecting,
    Fetching,
    Loading,
    Flipped,
    Draining,
}

impl Point {
    const ALL: [Self; 5] = [
        Self::Inspecting,
        Self::Fetching,
        Self::Loading,
        Self::Flipped,
        Self::Draining,
    ];

    /// True while the edit to `quant` is there; `old` is the workload that served before.
    async fn is_now(self, scene: &Scene, quant: &str, old: &Value) -> Result<bool> {
        let objects = scene.cluster.workloads(&scene.namespace).await?;
        let mut objects = objects.iter();
        let component = |object: &Value, word: &str| {
            object["metadata"]["labels"]["app.kubernetes.io/component"] == word
        };
        Ok(match self {
            Self::Inspecting => objects.any(|object| {
                component(object, "inspect") && object["status"]["completionTime"].is_null()
            }),
            Self::Fetching => {
                // A second after its start it has the headers and takes weights, of which there are seconds.
                let pods = scene.cluster.pods(&scene.namespace, "fetch").await?;
                let statuses = pods
                    .into_iter()
                    .filter_map(|pod| pod.status?.container_statuses);
                let mut started = statuses
                    .flatten()
                    .filter_map(|container| container.state?.running?.started_at);
                started.any(|at| Timestamp::now().duration_since(at.0).as_secs() >= 1)
            }
            Self::Loading => objects.any(|object| {
                object["metadata"]["annotations"]["kimioperator.dev/quant"] == quant
                    && object["status"]["readyReplicas"].is_null()
            }),
            Self::Flipped => objects.any(|object| selected(object).is_some_and(|now| now != old)),
            Self::Draining => {
                let servers = scene.cluster.pods(&scene.namespace, "server").await?;
                servers
                    .iter()
                    .any(|pod| pod.metadata.deletion_timestamp.is_some())
            }
        })
    }
}

/// The workload that a Service selects.
fn selected(object: &Value) -> Option<&Value> {
    object["spec"]["selector"].get("kimioperator.dev/workload")
}

/// What is left when an edit is over: each Deployment's quant, whether the Service leads to it, and volumes.
async fn essence(scene: &Scene) -> Result<Value> {
    let objects = scene.cluster.workloads(&scene.namespace).await?;
    let active = objects.iter().find_map(selected).cloned();
    let servers: Vec<Value> = objects
        .iter()
        .filter(|object| object["metadata"]["annotations"]["kimioperator.dev/quant"].is_string())
        .map(|object| {
            let meta = &object["metadata"];
            let leads_here = active.as_ref() == Some(&meta["labels"]["kimioperator.dev/workload"]);
            json!([meta["annotations"]["kimioperator.dev/quant"], leads_here])
        })
        .collect();
    let volumes = scene.cluster.volumes(&scene.namespace).await?.len();
    Ok(json!({"servers": servers, "volumes": volumes}))
}

#[tokio::test]
async fn an_operator_killed_at_the_worst_points_of_an_edit_changes_nothing() -> Result<()> {
    let scene = Scene::new("five-points").await?;
    // Slow enough that a kill lands in the middle of a fetch.
    let slow = json!({"bytesPerSecond": 3_000_000});
    scene.hub.faults(&slow).await?;
    let mut model = scene.model(NAME, "Q8_0");
    model["spec"]["storage"] = json!({"keepQuants": 0});
    scene.cluster.apply(&model).await?;
    scene
        .cluster
        .wait_ready(&scene.namespace, NAME, PATIENCE)
        .await?;
    let address = scene.cluster.address(&scene.namespace, NAME).await?;
    let load = Load::start(&address, QUESTION, &MODES);
    for (index, point) in sample(&Point::ALL).into_iter().enumerate() {
        let quant = ["Q4_K_M", "Q8_0"][index % 2];
        let objects = scene.cluster.workloads(&scene.namespace).await?;
        let old = objects
            .iter()
            .find_map(selected)
            .cloned()
            .unwrap_or_default();
        let change = json!({"quant": quant});
        scene.cluster.edit(&scene.namespace, NAME, &change).await?;
        let start = Instant::now();
        while !point.is_now(&scene, quant, &old).await? {
            ensure!(start.elapsed() < PATIENCE, "{point:?} never came");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        scene.cluster.kill_operator().await?;
        let killed = start.elapsed();
        let wanted = json!({"servers": [[quant, true]], "volumes": 1});
        let key = (scene.namespace.as_str(), NAME);
        let model = scene
            .cluster
            .wait(key, quant, PATIENCE, serves(quant))
            .await?;
        while essence(&scene).await? != wanted {
            ensure!(
                start.elapsed() < PATIENCE,
                "{point:?}: {}",
                essence(&scene).await?
            );
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let entry = &model["status"]["history"][0];
        println!(
            "operator killed {:.1} s into the edit ({point:?}), settled after {:.1} s: {entry}",
            killed.as_secs_f64(),
            start.elapsed().as_secs_f64()
        );
        ensure!(
            entry["to"] == quant && entry["outcome"] == "Switched",
            "{entry}"
        );
        ensure!(
            entry["from"] != quant && entry["outageSeconds"] == 0,
            "{entry}"
        );
    }
    said(&load.stop().await, "deaths of the operator")?;
    scene.end().await
}

/// Texts of different kinds, so that routers choose differently.
const TEXTS: [&str; 8] = [
    "In the beginning God created the heaven and the earth.",
    "def quicksort(xs): return xs if len(xs) < 2 else quicksort([x for x in xs[1:] if x < xs[0]])",
    "3.14159265358979323846264338327950288419716939937510",
    "Der Mond ist aufgegangen, die goldnen Sternlein prangen am Himmel hell und klar.",
    "SELECT name, sum(price) FROM orders GROUP BY name HAVING sum(price) > 100;",
    "月が綺麗ですね。明日は晴れるでしょう。",
    "And the LORD spake unto Moses, saying, Speak unto the children of Israel.",
    "{\"kind\": \"KimiModel\", \"spec\": {\"quant\": \"Q8_0\"}}",
];

#[tokio::test]
async fn a_pod_at_the_planned_minimum_of_memory_is_not_killed() -> Result<()> {
    let scene = Scene::new("least-memory").await?;
    let model = scene.deploy(NAME, "Q8_0").await?;
    let least = model["status"]["plan"]["ramMinBytes"].as_u64().unwrap_or(0);
    ensure!(least > 0, "{}", model["status"]["plan"]);
    edit(
        &scene,
        json!({"memory": least.to_string()}),
        "a server at the least memory",
        serves("Q8_0"),
    )
    .await?;
    let address = scene.cluster.address(&scene.namespace, NAME).await?;
    // Each text twice: an expert that is read once more must come from somewhere.
    for text in TEXTS.iter().chain(&TEXTS) {
        ask(&address, text, Mode::Fresh).await?;
    }
    let key = (scene.namespace.as_str(), NAME);
    let model = scene
        .cluster
        .wait(key, "measured memory", PATIENCE, |model| {
            model["status"]["measured"]["ramBytes"]["measured"].is_i64()
        });
    let model = model.await?;
    let measured = &model["status"]["measured"];
    println!("least memory {least} bytes: {measured}");
    ensure!(
        condition(&model, "MemoryFits").0 == "True",
        "{}",
        model["status"]
    );
    let servers = scene.cluster.pods(&scene.namespace, "server").await?;
    let lives = |pod: &&Pod| pod.metadata.deletion_timestamp.is_none();
    let server = servers.iter().find(lives).context("no server")?;
    let status = serde_json::to_value(&server.status)?;
    let container = &status["containerStatuses"][0];
    ensure!(status["reason"].is_null(), "evicted: {status}");
    ensure!(
        container["restartCount"] == 0 && container["lastState"] == json!({}),
        "{container}"
    );
    scene.end().await
}
