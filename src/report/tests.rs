//! A report of a stand-in for the API server whose every object and log holds secrets.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use hyper::{Request, Response};
use kube::client::Body;
use serde_json::json;

use super::*;

const SECRET: &str = "hf_verysecrettoken";

/// Answers every list with one object that holds secrets, and every log with lines that do.
fn client(asked: &Arc<Mutex<Vec<String>>>) -> Client {
    let asked = Arc::clone(asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        asked.lock().unwrap().push(path.clone());
        let body = if path.ends_with("/log") {
            format!("2026-01-01 connecting with Bearer {SECRET}\n").repeat(100)
        } else if path == "/version" {
            json!({"major": "1", "minor": "34", "gitVersion": "v1.34.4", "gitCommit": "", "gitTreeState": "",
                "buildDate": "", "goVersion": "", "compiler": "", "platform": "linux/amd64"})
            .to_string()
        } else {
            let object = json!({
                "metadata": {"name": "kimi-1", "namespace": "llm", "labels": {"nvidia.com/gpu.product": "Tesla-T4", "team/secret": SECRET},
                    "annotations": {"kubectl.kubernetes.io/last-applied-configuration": SECRET}},
                "spec": {"containers": [{"name": "server", "env": [{"name": "HTTPS_PROXY", "value": "http://u:pw@proxy"}],
                    "args": ["--key", SECRET]}]},
                "status": {"containerStatuses": [{"restartCount": 1}], "message": format!("token={SECRET}")}});
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [object]}).to_string()
        };
        std::future::ready(Ok::<_, Infallible>(Response::new(Body::from(
            body.into_bytes(),
        ))))
    });
    Client::new(service, "llm")
}

fn files(directory: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().display().to_string();
                found.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_report_has_what_helps_and_no_secret() {
    let asked = Arc::default();
    let client = client(&asked);
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path().join("report");
    let scope = Scope {
        namespace: None,
        operator_namespace: "kimi-system".to_owned(),
    };
    let bytes = write(&client, &scope, &directory).await.unwrap();
    let files = files(&directory);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    for wanted in [
        "README.txt",
        "kimi-system/logs/kimi-1/server.log",
        "kimimodels.yaml",
        "llm/deployments.yaml",
        "llm/events.yaml",
        "llm/logs/kimi-1/server.log",
        "llm/logs/kimi-1/server.previous.log",
        "nodes.yaml",
        "versions.yaml",
    ] {
        assert!(names.contains(&wanted), "no {wanted} in {names:?}");
    }
    for (name, text) in &files {
        assert!(
            !text.contains(SECRET) && !text.contains("u:pw"),
            "{name}:\n{text}"
        );
    }
    assert_eq!(
        bytes,
        files.iter().map(|(_, text)| text.len()).sum::<usize>()
    );
    let nodes = &files
        .iter()
        .find(|(name, _)| name == "nodes.yaml")
        .unwrap()
        .1;
    assert!(
        nodes.contains("Tesla-T4") && !nodes.contains("team/secret"),
        "{nodes}"
    );
    assert!(
        asked
            .lock()
            .unwrap()
            .iter()
            .all(|path| !path.contains("/secrets")),
        "no Secret is asked for"
    );
    assert!(matches!(
        write(&client, &scope, &directory).await,
        Err(Error::Exists(_))
    ));
}
