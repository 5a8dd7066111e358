//! Fetches by processes of their own: killed with -9 in the middle and gone on with by the next one; through a proxy
//! that only the environment names.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{REPO, Scene, TOTAL};
use fetch::{Artifact, Hub, Options, Source, ledger};
use testhub::faults::Faults;

/// Not a test of its own: what the child process runs, told by its environment.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(endpoint) = std::env::var("FETCH_CHILD_ENDPOINT") else {
        return;
    };
    let hub = Hub::new(&endpoint, None).unwrap();
    let source = Source {
        repo: REPO.into(),
        revision: "main".into(),
        path: None,
        quant: "Q4_K_M".into(),
    };
    let artifact = Artifact::find(&hub, &source).await.unwrap();
    let options = Options {
        connections: 4,
        ..Options::new(std::env::var("FETCH_CHILD_DEST").unwrap())
    };
    fetch::fetch(&hub, &artifact, &options, Default::default())
        .await
        .unwrap();
}

fn command(scene: &Scene) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "processes::child"])
        .env("FETCH_CHILD_ENDPOINT", scene.hub.url())
        .env("FETCH_CHILD_DEST", scene.dest.path())
        .stdout(Stdio::null());
    command
}

fn spawn(scene: &Scene) -> Child {
    command(scene).spawn().unwrap()
}

fn recorded_pieces(dest: &Path) -> usize {
    let Ok(entries) = fs::read_dir(dest.join(".kimi")) else {
        return 0;
    };
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    texts
        .map(|text| {
            text.lines()
                .filter(|line| line.starts_with("piece "))
                .count()
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn at_most_one_piece_per_connection_comes_again() {
    let scene = Scene::new().await;
    scene.hub.set_faults(Faults {
        bytes_per_second: Some(3_000_000),
        ..Faults::default()
    });
    // Three processes are killed, the fourth is let through.
    for round in 1..=3 {
        let before = recorded_pieces(scene.dest.path());
        let mut child = spawn(&scene);
        let deadline = Instant::now() + Duration::from_secs(20);
        while recorded_pieces(scene.dest.path()) < before + 3 {
            assert!(Instant::now() < deadline, "no progress in round {round}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // SIGKILL: nothing in the process can tidy up.
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!scene.dest.path().join("kimi-manifest.json").exists());
    }
    scene.hub.set_faults(Faults::default());
    let mut child = spawn(&scene);
    let status = tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success());
    scene.assert_whole();
    let piece = ledger::piece_bytes(crate::common::SHARD as u64, 4);
    let again = scene.hub.stats().bytes_served - TOTAL;
    eprintln!("{again} of {TOTAL} bytes came again after three kills");
    assert!(
        again <= 3 * 4 * piece,
        "{again} bytes came again after three kills; 4 connections, pieces of {piece}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_of_the_environment_is_used() {
    let scene = Scene::with(|config| {
        // The second authority is reached directly, which NO_PROXY says.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        config.cdn_listen.set_port(port);
        config.cdn_url = Some(format!("http://127.0.0.1:{port}"));
    })
    .await;
    // A name that does not resolve: only a proxy finds it. The stand-in answers proxied requests like its own.
    let mut child = command(&scene)
        .env("FETCH_CHILD_ENDPOINT", "http://hub.invalid")
        .env("HTTP_PROXY", scene.hub.url())
        .env("NO_PROXY", "127.0.0.1")
        .spawn()
        .unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success());
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_nobody_gave_is_not_sent() {
    // The stand-in refuses tokens that it does not know.
    let scene = Scene::new().await;
    let mut child = command(&scene)
        .env("HF_TOKEN", "not-meant-for-this-hub")
        .spawn()
        .unwrap();
    let status = tokio::task::spawn_blocking(move || child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success());
    scene.assert_whole();
}
