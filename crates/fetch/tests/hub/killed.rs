//! kill -9 in the middle of a fetch, by a process of its own, and a second process that goes on.

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

fn spawn(scene: &Scene) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::child"])
        .env("FETCH_CHILD_ENDPOINT", scene.hub.url())
        .env("FETCH_CHILD_DEST", scene.dest.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
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
    assert!(
        again <= 3 * 4 * piece,
        "{again} bytes came again after three kills; 4 connections, pieces of {piece}"
    );
}
