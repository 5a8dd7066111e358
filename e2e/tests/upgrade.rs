//! A cluster whose operator is upgraded from the first chart there was: the servers of its KimiModels go on as if
//! nothing had happened, until somebody asks for the new engine. Run through `e2e/upgrade.sh`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::clients::{Load, Mode};
use e2e::cluster::{Cluster, condition};
use e2e::scene::{PATIENCE, QUESTION, Scene};
use kube::ResourceExt;
use serde_json::json;

/// Long enough for a mistaken rollout to begin.
const WATCHED: Duration = Duration::from_secs(30);

/// Each server pod with how often its container has started again.
async fn servers(scene: &Scene) -> Result<Vec<(String, i32)>> {
    let pods = scene.cluster.pods(&scene.namespace, "server").await?;
    let restarts = |pod: &k8s_openapi::api::core::v1::Pod| {
        let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
        Some(statuses.iter().map(|status| status.restart_count).sum())
    };
    let mut servers: Vec<(String, i32)> = pods
        .iter()
        .map(|pod| (pod.name_any(), restarts(pod).unwrap_or_default()))
        .collect();
    servers.sort();
    Ok(servers)
}

#[tokio::test]
async fn an_upgrade_from_the_first_chart_restarts_no_pod() -> Result<()> {
    let Some(first) = std::env::var_os("KIMI_FIRST_CHART") else {
        println!(
            "skipped: run this through e2e/upgrade.sh, which makes the first chart and its images"
        );
        return Ok(());
    };
    let cluster = Cluster::connect().await?;
    cluster.install_chart(Path::new(&first), "first")?;
    let scene = Scene::on(cluster, "upgrade").await?;
    scene.deploy("kimi-tiny", "Q4_K_M").await?;
    let before = servers(&scene).await?;
    ensure!(before.len() == 1, "{before:?}");
    let address = scene.cluster.address(&scene.namespace, "kimi-tiny").await?;
    let modes = [Mode::KeepAlive, Mode::Fresh, Mode::Streaming];
    let load = Load::start(&address, QUESTION, &modes);

    scene.cluster.install()?;
    let key = (scene.namespace.as_str(), "kimi-tiny");
    let told = scene.cluster.wait(key, "EngineOutdated", PATIENCE, |m| {
        condition(m, "EngineOutdated").0 == "True"
    });
    println!("{:?}", condition(&told.await?, "EngineOutdated"));
    tokio::time::sleep(WATCHED).await;
    let after = servers(&scene).await?;
    ensure!(before == after, "{before:?} became {after:?}");
    let model = scene.cluster.get(key.0, key.1).await?;
    ensure!(
        condition(&model, "Ready").0 == "True",
        "{}",
        model["status"]
    );

    // Asked for, the new engine comes as a quant edit does.
    let automatic = json!({"rollout": {"engineUpdate": "Automatic"}});
    scene.cluster.edit(key.0, key.1, &automatic).await?;
    let renewed = scene.cluster.wait(key, "the new engine", PATIENCE, |m| {
        condition(m, "EngineOutdated").0 == "False" && condition(m, "Reconciling").0 != "True"
    });
    renewed.await?;
    let tally = load.stop().await;
    println!(
        "helm upgrade and new engine: {} requests, {} failed",
        tally.total(),
        tally.failures.len()
    );
    ensure!(tally.failures.is_empty(), "{:?}", &tally.failures[..1]);
    ensure!(
        servers(&scene).await? != before,
        "the old server still runs"
    );
    scene.end().await
}
