//! Whether the stand-in speaks the hub's protocol, judged by the hub's own Python client, and whether it keeps to its
//! root.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;
use std::process::Command;

use testhub::{Config, Hub, clients};

/// The client that judges, from PyPI.
const CLIENT: &str = "huggingface_hub==2.4.0";

fn write(root: &Path, path: &str, bytes: usize) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let content: Vec<u8> = (0..bytes as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(path, content).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_finds_nothing_missing() {
    let Some(python) = clients::python(CLIENT).unwrap() else {
        return;
    };
    let (root, scratch) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for no in 1..=3 {
        write(
            root.path(),
            &format!("acme/Model-GGUF/Q4_K_M/Model-Q4_K_M-0000{no}-of-00003.gguf"),
            300_000 + no,
        );
    }
    write(root.path(), "acme/Model-GGUF/Model-Q8_0.gguf", 100_001);
    write(root.path(), "acme/Model-GGUF/README.md", 5_000);
    write(root.path(), "acme/Model-GGUF/config #1.json", 77);
    write(root.path(), "acme/Gated/a.gguf", 1_000);
    write(root.path(), "acme/Private/a.gguf", 1_000);
    let hub = Hub::start(Config {
        tokens: vec!["good".into()],
        outsiders: vec!["outsider".into()],
        gated: vec!["acme/Gated".into()],
        private: vec!["acme/Private".into()],
        renamed: vec![("acme/Old-Name".into(), "acme/Model-GGUF".into())],
        page_size: 3,
        ..Config::local(root.path())
    })
    .await
    .unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/official_client.py");
    let (url, root_path, scratch_path) =
        (hub.url(), root.path().to_owned(), scratch.path().to_owned());
    let run = move || {
        Command::new(python)
            .arg(script)
            .arg(url)
            .arg(root_path)
            .arg(scratch_path)
            .output()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        hub.stats().authorization_on_cdn,
        0,
        "the official client sends no token to the second authority"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_the_root_is_served() {
    let outside = tempfile::tempdir().unwrap();
    let root = outside.path().join("root");
    write(outside.path(), "secret.gguf", 10);
    write(&root, "acme/Model/a.gguf", 10);
    std::os::unix::fs::symlink(
        outside.path().join("secret.gguf"),
        root.join("acme/Model/link.gguf"),
    )
    .unwrap();
    let hub = Hub::start(Config::local(&root)).await.unwrap();
    let address = hub.url().trim_start_matches("http://").to_owned();
    for path in [
        "/acme/Model/resolve/main/../../../secret.gguf",
        "/acme/Model/resolve/main/..%2F..%2F..%2Fsecret.gguf",
        "/acme/Model/resolve/main/link.gguf",
        "/acme/../resolve/main/secret.gguf",
        "/api/models/acme/%2E%2E",
    ] {
        let answer = get(&address, path).await;
        let refused = answer.starts_with("HTTP/1.1 404") || answer.starts_with("HTTP/1.1 401");
        assert!(refused, "{path}: {answer}");
    }
    assert!(
        get(&address, "/acme/Model/resolve/main/a.gguf")
            .await
            .starts_with("HTTP/1.1 302")
    );
}

/// A raw request, so that no client library tidies the path.
async fn get(address: &str, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
