//! `kimi fetch` and `kimi inspect-remote` as the Jobs run them: exit codes, the termination message, `GET /progress`,
//! against the hub stand-in and the committed model. Knows the command line only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use sizing::InspectReport;
use tempfile::TempDir;
use testhub::faults::Faults;
use testhub::{Config, Hub};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

const REPO: &str = "kimi-operator/Kimi-Tiny-GGUF";

struct Scene {
    hub: Hub,
    scratch: TempDir,
}

/// How a command ended.
#[derive(Debug)]
struct End {
    code: i32,
    reason: String,
    message: String,
    stdout: String,
}

fn model_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/hub")
}

impl Scene {
    async fn new() -> Self {
        Self {
            hub: Hub::start(Config::local(model_root())).await.unwrap(),
            scratch: tempfile::tempdir().unwrap(),
        }
    }

    /// A scene over a repository of one made-up file.
    async fn with_file(name: &str, bytes: &[u8]) -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let repo = scratch.path().join("hub").join(REPO);
        fs::create_dir_all(&repo).unwrap();
        fs::write(repo.join(name), bytes).unwrap();
        Self {
            hub: Hub::start(Config::local(scratch.path().join("hub")))
                .await
                .unwrap(),
            scratch,
        }
    }

    fn output(&self) -> PathBuf {
        self.scratch.path().join("termination-log")
    }

    fn dest(&self) -> PathBuf {
        self.scratch.path().join("models")
    }

    fn command(&self, subcommand: &str, quant: &str, extra: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kimi"));
        command
            .args([subcommand, "--repo", REPO, "--quant", quant, "--output"])
            .arg(self.output());
        command
            .env_remove("HF_TOKEN")
            .env("HF_ENDPOINT", self.hub.url())
            .args(extra)
            .kill_on_drop(true);
        if subcommand == "fetch" {
            command.arg("--dest").arg(self.dest());
        }
        command
    }

    async fn run(&self, subcommand: &str, quant: &str, extra: &[&str]) -> End {
        let output = self
            .command(subcommand, quant, extra)
            .output()
            .await
            .unwrap();
        let report = fs::read_to_string(self.output()).unwrap_or_default();
        assert!(report.len() < 4_000, "{} bytes", report.len());
        let value: Value = serde_json::from_str(&report).unwrap_or_default();
        let text = |key: &str| value["error"][key].as_str().unwrap_or_default().to_owned();
        End {
            code: output.status.code().unwrap_or(-1),
            reason: text("reason"),
            message: text("message"),
            stdout: String::from_utf8(output.stdout).unwrap(),
        }
    }

    async fn facts(&self, quant: &str) -> sizing::Facts {
        let end = self.run("inspect-remote", quant, &[]).await;
        match InspectReport::parse(end.stdout.trim()) {
            Ok(InspectReport::Facts(facts)) => *facts,
            other => panic!("{other:?}: {end:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_then_the_artifact_that_they_pin() {
    let scene = Scene::new().await;
    let facts = scene.facts("Q4_K_M").await;
    assert_eq!(
        (
            facts.shards,
            facts.path.as_str(),
            facts.architecture.as_str()
        ),
        (3, "Q4_K_M", "deepseek2")
    );
    assert!(
        facts.bytes > scene.hub.stats().bytes_served,
        "only the headers were read"
    );

    let pinned = ["--revision", &facts.commit, "--digest", &facts.digest];
    let end = scene.run("fetch", "Q4_K_M", &pinned).await;
    assert_eq!(end.code, 0, "{end:?}");
    let manifest: Value =
        serde_json::from_slice(&fs::read(scene.dest().join("kimi-manifest.json")).unwrap())
            .unwrap();
    assert_eq!(
        (&manifest["digest"], manifest["bytes"].as_u64()),
        (&Value::from(facts.digest.as_str()), Some(facts.bytes))
    );
    for file in manifest["files"].as_array().unwrap() {
        let path = file["path"].as_str().unwrap();
        assert!(
            fs::read(scene.dest().join(path)).unwrap()
                == fs::read(model_root().join(REPO).join(path)).unwrap()
        );
    }

    // Pinned and whole: not even the hub is needed.
    let offline = [&pinned[..], &["--endpoint", "http://127.0.0.1:9"]].concat();
    assert_eq!(scene.run("fetch", "Q4_K_M", &offline).await.code, 0);

    let wrong = ["--revision", &facts.commit, "--digest", "00"];
    let end = scene.run("fetch", "Q8_0", &wrong).await;
    assert_eq!(
        (end.code, end.reason.as_str()),
        (2, "DigestMismatch"),
        "{end:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_work_says_so_once() {
    let scene = Scene::new().await;
    for command in ["inspect-remote", "fetch"] {
        let end = scene.run(command, "Q9_X", &[]).await;
        assert_eq!(
            (end.code, end.reason.as_str()),
            (2, "QuantNotFound"),
            "{end:?}"
        );
        assert!(end.message.contains("Q4_K_M, Q8_0"), "{end:?}");
        let end = scene
            .run(command, "Q4_K_M", &["--token-file", "/nonexistent/token"])
            .await;
        assert_eq!(
            (end.code, end.reason.as_str()),
            (1, "SecretMissing"),
            "{end:?}"
        );
    }
    let cases: [(&[u8], &str); 3] = [
        (b"PK\x03\x04 something else entirely", "NotGguf"),
        (
            b"GGUF\x03\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0",
            "TruncatedFile",
        ),
        (
            b"GGUF\x63\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0",
            "BadHeader",
        ),
    ];
    for (bytes, reason) in cases {
        let scene = Scene::with_file("Model-Q4_0.gguf", bytes).await;
        let end = scene.run("inspect-remote", "Q4_0", &[]).await;
        assert_eq!((end.code, end.reason.as_str()), (2, reason), "{end:?}");
        assert!(end.message.contains("Model-Q4_0.gguf"), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_can_be_watched_and_a_polite_end_is_heeded() {
    let scene = Scene::new().await;
    let facts = scene.facts("Q8_0").await;
    scene.hub.set_faults(Faults {
        bytes_per_second: Some(1_500_000),
        ..Faults::default()
    });
    let address = free_address();
    let mut child = scene
        .command("fetch", "Q8_0", &["--listen", &address])
        .spawn()
        .unwrap();
    let mut seen = Value::Null;
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        seen = progress(&address).await.unwrap_or_default();
        if seen["downloaded"].as_u64() > Some(1_000_000) {
            break;
        }
    }
    assert_eq!(
        (seen["state"].as_str(), seen["bytes"].as_u64()),
        (Some("downloading"), Some(facts.bytes)),
        "{seen}"
    );
    assert!(
        seen["bytesPerSecond"].as_u64() > Some(100_000) && seen["etaSeconds"].is_u64(),
        "{seen}"
    );
    assert_eq!(
        (seen["shards"].as_u64(), seen["message"].as_str()),
        (Some(3), Some(""))
    );

    let pid = child.id().unwrap().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .await
            .unwrap()
            .success()
    );
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    let report = fs::read_to_string(scene.output()).unwrap();
    assert!(report.contains("Interrupted"), "{report}");

    scene.hub.reset();
    assert_eq!(scene.run("fetch", "Q8_0", &[]).await.code, 0);
}

fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

async fn progress(address: &str) -> Option<Value> {
    let mut stream = tokio::net::TcpStream::connect(address).await.ok()?;
    let request = format!("GET /progress HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}
