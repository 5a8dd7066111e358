//! `kimi serve` as clients see it that others wrote: OpenAI's Python SDK and lm-evaluation-harness. Knows
//! the command line only; what is asked and what must come back is in the scripts of `clients/`.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{fs, path::Path, process::Command};

use common::{Server, free_port, kimi, model};
use testhub::clients;

/// A server of the small model under the key `sesame`, and the URL of its API.
fn server(dir: &Path) -> (Server, String) {
    let key = dir.join("key");
    fs::write(&key, "sesame\n").unwrap();
    let port = free_port();
    let mut command = kimi();
    command
        .args(["serve", "--host", "127.0.0.1", "--health-port", "0"])
        .args([
            "--alias",
            "kimi-tiny",
            "--ctx-size",
            "2048",
            "--parallel",
            "2",
        ])
        .args(["--port", &port.to_string(), "--api-key-file"])
        .arg(key)
        .arg("--model")
        .arg(model("Q8_0"));
    let server = Server::start(&mut command, port);
    (server, format!("http://127.0.0.1:{port}"))
}

/// Runs a script with a client, or skips it where the client cannot be had.
fn judge(client: &str, script: &str, args: impl Fn(&str, &Path) -> Vec<String>) {
    let Some(python) = clients::python(client).unwrap() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let (_server, url) = server(dir.path());
    let script = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(script);
    let output = Command::new(python)
        .arg(script)
        .args(args(&url, dir.path()))
        .env("OPENAI_API_KEY", "sesame")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn the_official_sdk_gets_all_it_asks_for() {
    judge("openai==3.57.0", "openai_sdk.py", |url, _| {
        vec![format!("{url}/v1")]
    });
}

#[test]
fn the_evaluation_harness_scores_the_model() {
    judge("lm_eval[api]==0.4.13", "harness.py", |url, dir| {
        vec![url.to_owned(), dir.display().to_string()]
    });
}
