//! Bytes that change on the volume behind our back: unseen by an ordinary fetch when the time is kept, found and replaced
//! by one that verifies.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use crate::common::{SHARD, Scene, content, shard_path};
use fetch::Options;
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread")]
async fn verifying_finds_rot_and_fetches_that_shard_only() {
    let scene = Scene::new().await;
    scene.fetch().await.unwrap();
    let rotten = scene.dest.path().join(shard_path(2));
    let time = fs::metadata(&rotten).unwrap().modified().unwrap();
    let mapped = File::open(&rotten).unwrap();
    let file = File::options().write(true).open(&rotten).unwrap();
    file.write_all_at(&[0x5a; 16], 1_000_000).unwrap();
    file.set_modified(time).unwrap();
    let before = fs::read(&rotten).unwrap();

    scene.fetch().await.unwrap();
    assert!(fs::read(&rotten).unwrap() == before, "nobody looked");

    scene.faults(Vec::new());
    let artifact = scene.find().await;
    let options = Options {
        verify: true,
        ..scene.options()
    };
    let progress = watch::Sender::default();
    let manifest = fetch::fetch(&scene.client(None), &artifact, &options, progress)
        .await
        .unwrap();
    assert_eq!(manifest.files.len(), 3);
    scene.assert_whole();
    assert_eq!(
        scene.hub.stats().bytes_served,
        SHARD as u64,
        "the two sound shards stayed"
    );
    // A server that has the old file open keeps what it had: the new one came under another inode.
    let mut still = vec![0; SHARD];
    mapped.read_exact_at(&mut still, 0).unwrap();
    assert!(still == before && still != content(2, SHARD));
}
