//! Who may read what: tokens, gates, missing and renamed repositories; and that the token never leaves the hub.

use std::time::Duration;

use crate::common::{REPO, Scene, put, shard_path};
use fetch::{Artifact, Error, Hub, Source, Token, headers};
use tokio::sync::watch;

async fn error(scene: &Scene, token: Option<&str>, change: impl FnOnce(&mut Source)) -> Error {
    let mut source = scene.source("Q4_K_M");
    change(&mut source);
    let artifact = match Artifact::find(&scene.client(token), &source).await {
        Err(error) => return error,
        Ok(artifact) => artifact,
    };
    let outcome = fetch::fetch(
        &scene.client(token),
        &artifact,
        &scene.options(),
        watch::Sender::default(),
    )
    .await;
    outcome.unwrap_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_reason() {
    let scene = Scene::with(|config| config.tokens = vec!["good".into()]).await;
    let cases = [
        (
            error(&scene, None, |s| s.quant = "Q9_X".into()).await,
            "QuantNotFound",
            "Q4_K_M, Q8_0",
        ),
        (
            error(&scene, None, |s| s.repo = "acme/none".into()).await,
            "RepoNotFound",
            "acme/none",
        ),
        (
            error(&scene, Some("good"), |s| s.repo = "acme/none".into()).await,
            "RepoNotFound",
            "acme/none",
        ),
        (
            error(&scene, None, |s| s.revision = "v9".into()).await,
            "RevisionNotFound",
            "'v9'",
        ),
        (
            error(&scene, Some("bad"), |_| ()).await,
            "Unauthorized",
            "renew the token",
        ),
        (
            error(&scene, None, |s| s.repo = "no slash".into()).await,
            "InvalidSource",
            "OWNER/NAME",
        ),
    ];
    for (error, reason, part) in cases {
        assert_eq!(
            (error.reason(), error.permanent()),
            (reason, true),
            "{error}"
        );
        assert!(error.to_string().contains(part), "{error}");
    }
    put(scene.root.path(), "Q3_K/M-Q3_K-00002-of-00002.gguf", b"x");
    let gap = error(&scene, None, |s| s.quant = "Q3_K".into()).await;
    assert_eq!(gap.reason(), "MissingShard");
    assert!(
        gap.to_string().contains("M-Q3_K-00001-of-00002.gguf"),
        "{gap}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_opens_for_its_token_and_the_token_stays_at_the_hub() {
    let scene = Scene::with(|config| {
        config.gated = vec![REPO.into()];
        config.tokens = vec!["good".into()];
        config.outsiders = vec!["outsider".into()];
    })
    .await;
    for token in [None, Some("outsider")] {
        let refused = error(&scene, token, |_| ()).await;
        assert_eq!(
            (refused.reason(), refused.permanent()),
            ("Gated", true),
            "{refused}"
        );
    }
    let client = scene.client(Some("good"));
    let artifact = Artifact::find(&client, &scene.source("Q4_K_M"))
        .await
        .unwrap();
    fetch::fetch(
        &client,
        &artifact,
        &scene.options(),
        watch::Sender::default(),
    )
    .await
    .unwrap();
    scene.assert_whole();
    assert_eq!(scene.hub.stats().authorization_on_cdn, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repo_is_there_for_its_token() {
    let scene = Scene::with(|config| {
        config.private = vec![REPO.into()];
        config.tokens = vec!["good".into()];
    })
    .await;
    assert_eq!(error(&scene, None, |_| ()).await.reason(), "RepoNotFound");
    assert!(
        Artifact::find(&scene.client(Some("good")), &scene.source("Q4_K_M"))
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_repo_is_found_by_its_old_name() {
    let scene = Scene::with(|config| config.renamed = vec![("acme/Old".into(), REPO.into())]).await;
    let source = Source {
        repo: "acme/Old".into(),
        ..scene.source("Q4_K_M")
    };
    let artifact = Artifact::find(&scene.client(None), &source).await.unwrap();
    fetch::fetch(
        &scene.client(None),
        &artifact,
        &scene.options(),
        watch::Sender::default(),
    )
    .await
    .unwrap();
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_many_pages_is_read_to_its_end() {
    let scene = Scene::with(|config| config.page_size = 2).await;
    assert_eq!(scene.find().await.shards.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_hub_is_not_a_permanent_error() {
    let hub = Hub::new("http://127.0.0.1:9", None)
        .unwrap()
        .with_patience(Duration::from_secs(1));
    let error = hub.commit("a/b", "main").await.unwrap_err();
    assert_eq!(
        (error.reason(), error.permanent()),
        ("HubUnreachable", false)
    );
    assert!(error.to_string().contains("127.0.0.1:9"), "{error}");
    assert_eq!(
        Hub::new("ftp://x", None).unwrap_err().reason(),
        "InvalidSource"
    );
    assert_eq!(
        Token::read("/nonexistent".as_ref()).unwrap_err().reason(),
        "SecretMissing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_start_of_a_remote_file_grows_until_it_is_enough() {
    let scene = Scene::new().await;
    let artifact = scene.find().await;
    let whole = std::fs::read(scene.root.path().join(REPO).join(shard_path(1))).unwrap();
    let mut reads = Vec::new();
    let parse = |bytes: &[u8]| -> Result<_, Error> {
        reads.push(bytes.len());
        assert_eq!(bytes, &whole[..bytes.len()]);
        Ok(if bytes.len() < 700_000 {
            headers::Step::Need(700_000)
        } else {
            headers::Step::Done(bytes.len())
        })
    };
    let got = headers::read(&scene.client(None), &artifact, &artifact.shards[0], parse)
        .await
        .unwrap();
    assert_eq!((got, reads), (700_000, vec![256 << 10, 700_000]));
    assert_eq!(
        scene.hub.stats().bytes_served,
        700_000,
        "no byte comes twice"
    );
    let greedy = |bytes: &[u8]| -> Result<headers::Step<()>, Error> {
        Ok(headers::Step::Need(bytes.len() as u64 + 1))
    };
    let error = headers::read(&scene.client(None), &artifact, &artifact.shards[0], greedy)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "BadHubAnswer");
}
