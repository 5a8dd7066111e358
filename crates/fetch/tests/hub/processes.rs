//! Fetches by processes of their own, with what only the environment tells them: a proxy, a token.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::{REPO, Scene};
use fetch::{Artifact, Hub, Options, Source};

/// Connections of a child's fetch.
pub(crate) const CONNECTIONS: usize = 4;

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
        connections: CONNECTIONS,
        stall: Duration::from_secs(1),
        min_bytes_per_second: 1_000,
        ..Options::new(std::env::var("FETCH_CHILD_DEST").unwrap())
    };
    fetch::fetch(&hub, &artifact, &options, Default::default())
        .await
        .unwrap();
}

/// The child process that fetches from the scene's hub into its directory.
pub(crate) fn command(scene: &Scene) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "processes::child"])
        .env("FETCH_CHILD_ENDPOINT", scene.hub.url())
        .env("FETCH_CHILD_DEST", scene.dest.path())
        .stdout(Stdio::null());
    command
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
