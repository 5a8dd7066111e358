//! The transfer against a hub that misbehaves: what heals by itself must heal without fetching much twice, and what
//! does not must end with the right reason and leave nothing under a final name that is not whole.

use std::fs;
use std::time::{Duration, Instant};

use crate::common::{REPO, SHARD, Scene, TOTAL, content, parts, rule, shard_path};
use fetch::ledger::piece_bytes;
use fetch::{Artifact, Manifest, State};
use testhub::faults::{Fault, Place};
use tokio::sync::watch;

fn status(code: u16) -> Fault {
    Fault::Status {
        code,
        retry_after: None,
        rate_limit: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_fetch_moves_every_byte_once_and_again_none() {
    let scene = Scene::new().await;
    let (sender, progress) = watch::channel(fetch::Progress::default());
    let manifest = scene.fetch_watched(sender).await.unwrap();
    scene.assert_whole();
    assert_eq!(manifest.digest, scene.find().await.digest);
    let stats = scene.hub.stats();
    assert_eq!(stats.bytes_served, TOTAL);
    assert_eq!(stats.resolve, 3, "one address per shard");
    let last = progress.borrow().clone();
    assert_eq!(
        (last.state, last.downloaded, last.bytes, last.shards_done),
        (State::Done, TOTAL, TOTAL, 3)
    );

    scene.hub.reset();
    scene.fetch().await.unwrap();
    let stats = scene.hub.stats();
    assert_eq!(
        (stats.bytes_served, stats.resolve),
        (0, 0),
        "a whole volume needs nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_that_pass_are_survived() {
    let cases = [
        (
            "too many requests",
            Place::Cdn,
            Fault::Status {
                code: 429,
                retry_after: Some(1),
                rate_limit: None,
            },
            1,
        ),
        (
            "rate limit header",
            Place::Resolve,
            Fault::Status {
                code: 429,
                retry_after: None,
                rate_limit: Some(1),
            },
            2,
        ),
        ("unavailable", Place::Cdn, status(503), 3),
        ("server error on the tree", Place::Api, status(500), 2),
        (
            "stall",
            Place::Cdn,
            Fault::Stall {
                after_bytes: 100_000,
            },
            2,
        ),
        (
            "cut",
            Place::Cdn,
            Fault::Cut {
                after_bytes: 150_000,
            },
            6,
        ),
        (
            "cut before the first byte",
            Place::Cdn,
            Fault::Cut { after_bytes: 0 },
            3,
        ),
        ("expired", Place::Cdn, Fault::Expired, 4),
        ("stale size", Place::Cdn, Fault::Truncate { bytes: 5 }, 1),
    ];
    // Each has a hub of its own, so that waits overlap.
    let survive = |(name, on, fault, count)| async move {
        let scene = Scene::new().await;
        scene.faults(vec![rule(on, fault, count)]);
        let outcome = scene.fetch().await;
        assert!(outcome.is_ok(), "{name}: {outcome:?}");
        scene.assert_whole();
        let again = scene.hub.stats().bytes_served - TOTAL;
        // What was received before a cut or a stall is kept. An answer refused for its headers may have its whole piece
        // under way already.
        let lost = match name {
            "stale size" => piece_bytes(SHARD as u64, 4),
            _ => 200_000 * u64::from(count),
        };
        assert!(again <= lost, "{name}: {again} bytes came twice");
    };
    futures::future::join_all(cases.map(survive)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hubs_own_wait_is_kept() {
    let scene = Scene::new().await;
    scene.faults(vec![rule(
        Place::Cdn,
        Fault::Status {
            code: 429,
            retry_after: Some(2),
            rate_limit: None,
        },
        1,
    )]);
    let start = Instant::now();
    scene.fetch().await.unwrap();
    assert!(
        start.elapsed() >= Duration::from_secs(2),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn corrupt_bytes_come_again_once_and_then_end_it() {
    let scene = Scene::new().await;
    scene.faults(vec![rule(Place::Cdn, Fault::Corrupt, 1)]);
    scene.fetch().await.unwrap();
    scene.assert_whole();
    assert_eq!(
        scene.hub.stats().bytes_served,
        TOTAL + SHARD as u64,
        "only the bad shard comes again"
    );

    let scene = Scene::new().await;
    let mut always = rule(Place::Cdn, Fault::Corrupt, 0);
    (always.count, always.path) = (None, Some("00002-of".into()));
    scene.faults(vec![always]);
    let error = scene.fetch().await.unwrap_err();
    assert_eq!(
        (error.reason(), error.permanent()),
        ("ChecksumMismatch", true)
    );
    assert!(error.to_string().contains(&shard_path(2)), "{error}");
    assert!(
        !scene.dest.path().join(shard_path(2)).exists()
            && Manifest::read(scene.dest.path()).is_none()
    );

    scene.hub.reset();
    scene.fetch().await.unwrap();
    scene.assert_whole();
    assert!(
        scene.hub.stats().bytes_served <= 2 * SHARD as u64,
        "a finished shard is kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_size_at_the_source_ends_it() {
    for fault in [
        Fault::Truncate { bytes: 1_000_000 },
        Fault::Oversize { bytes: 7 },
    ] {
        let scene = Scene::new().await;
        let mut always = rule(Place::Cdn, fault.clone(), 0);
        always.count = None;
        scene.faults(vec![always]);
        let error = scene.fetch().await.unwrap_err();
        assert_eq!(
            (error.reason(), error.permanent()),
            ("SizeMismatch", true),
            "{fault:?}: {error}"
        );
        assert!(!scene.dest.path().join(shard_path(1)).exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_without_ranges_is_named() {
    let scene = Scene::new().await;
    scene.faults(vec![rule(Place::Cdn, Fault::IgnoreRange, 100)]);
    let error = scene.fetch().await.unwrap_err();
    assert_eq!(error.reason(), "RangesUnsupported");
}

#[tokio::test(flavor = "multi_thread")]
async fn patience_ends_and_what_came_stays() {
    let scene = Scene::new().await;
    scene.faults(vec![
        rule(
            Place::Cdn,
            Fault::Cut {
                after_bytes: 300_000,
            },
            4,
        ),
        rule(Place::Cdn, status(502), 1_000),
    ]);
    let artifact = scene.find().await;
    let options = fetch::Options {
        patience: Duration::from_secs(2),
        ..scene.options()
    };
    let error = fetch::fetch(
        &scene.client(None),
        &artifact,
        &options,
        watch::Sender::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(
        (error.reason(), error.permanent()),
        ("HubUnreachable", false),
        "{error}"
    );
    assert!(
        error.to_string().contains("502") && !error.to_string().contains("Signature"),
        "{error}"
    );
    scene.hub.reset();
    scene.fetch().await.unwrap();
    scene.assert_whole();
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_live_for_a_second_are_renewed() {
    let scene = Scene::with(|config| config.url_ttl = Duration::from_secs(1)).await;
    scene.hub.set_faults(testhub::faults::Faults {
        bytes_per_second: Some(2_500_000),
        ..Default::default()
    });
    scene.fetch().await.unwrap();
    scene.assert_whole();
    let stats = scene.hub.stats();
    assert_eq!(stats.bytes_served, TOTAL);
    assert!(stats.resolve > 3, "{stats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_filled_by_hand_is_checked_not_fetched() {
    let scene = Scene::new().await;
    for no in 1..=3 {
        let path = scene.dest.path().join(shard_path(no));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut bytes = content(no as u64, SHARD);
        // The third one is wrong.
        bytes[5] ^= u8::from(no == 3);
        fs::write(path, bytes).unwrap();
    }
    scene.fetch().await.unwrap();
    scene.assert_whole();
    assert_eq!(scene.hub.stats().bytes_served, SHARD as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_volume_heals() {
    let scene = Scene::new().await;
    scene.fetch().await.unwrap();
    let dest = scene.dest.path();
    fs::remove_file(dest.join(shard_path(1))).unwrap();
    fs::write(dest.join(shard_path(2)), b"short").unwrap();
    fs::write(dest.join("kimi-manifest.json"), b"{\"torn").unwrap();
    scene.hub.reset();
    scene.fetch().await.unwrap();
    scene.assert_whole();
    assert_eq!(scene.hub.stats().bytes_served, 2 * SHARD as u64);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fetches_of_one_volume_take_turns() {
    let scene = Scene::new().await;
    let (one, two) = tokio::join!(scene.fetch(), scene.fetch());
    one.unwrap();
    two.unwrap();
    scene.assert_whole();
    assert_eq!(
        scene.hub.stats().bytes_served,
        TOTAL,
        "the second finds everything done"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_refused_before_the_first_byte() {
    // A file system of 4 MiB in a user namespace of its own: the mount ends with the process.
    let mount = tempfile::tempdir().unwrap();
    if std::env::var_os("FETCH_TINY_DISK").is_none() {
        let script = "mount -t tmpfs -o size=4m none \"$0\" && exec \"$1\" --exact faults::a_full_disk_is_refused_before_the_first_byte";
        let exe = std::env::current_exe().unwrap();
        let output = std::process::Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
            .arg(mount.path())
            .arg(exe)
            .env("FETCH_TINY_DISK", mount.path())
            .output();
        match output {
            Ok(output) if output.status.success() => {}
            Ok(output)
                if String::from_utf8_lossy(&output.stdout).contains("test result: FAILED") =>
            {
                panic!("{}", String::from_utf8_lossy(&output.stdout))
            }
            other => eprintln!("SKIPPED: no private mount for a small disk: {other:?}"),
        }
        return;
    }
    let disk = std::env::var_os("FETCH_TINY_DISK").unwrap();
    let scene = Scene::new().await;
    let artifact = scene.find().await;
    let options = fetch::Options {
        dest: disk.clone().into(),
        ..scene.options()
    };
    let error = fetch::fetch(
        &scene.client(None),
        &artifact,
        &options,
        watch::Sender::default(),
    )
    .await
    .unwrap_err();
    assert_eq!((error.reason(), error.permanent()), ("DiskFull", false));
    assert!(error.to_string().contains(&TOTAL.to_string()), "{error}");
    assert_eq!(scene.hub.stats().bytes_served, 0);
    // Space that goes away later is the same error.
    let small = Artifact::find(&scene.client(None), &scene.source("Q8_0"))
        .await
        .unwrap();
    fs::write(
        std::path::Path::new(&disk).join("filler"),
        vec![1; 4_150_000],
    )
    .unwrap();
    let error = fetch::fetch(
        &scene.client(None),
        &small,
        &options,
        watch::Sender::default(),
    )
    .await
    .unwrap_err();
    assert_eq!(error.reason(), "DiskFull", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_not_ours_names_fs_group() {
    let scene = Scene::new().await;
    let options = fetch::Options {
        dest: "/proc/kimi".into(),
        ..scene.options()
    };
    let artifact = scene.find().await;
    let error = fetch::fetch(
        &scene.client(None),
        &artifact,
        &options,
        watch::Sender::default(),
    )
    .await
    .unwrap_err();
    // Root in a container gets ENOENT from /proc where anybody else gets EACCES; both name the directory.
    assert!(
        ["VolumeNotWritable", "IoError"].contains(&error.reason()),
        "{error}"
    );
    assert!(error.to_string().contains("/proc/kimi"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_are_not_under_final_names_while_they_grow() {
    let scene = Scene::new().await;
    scene.hub.set_faults(testhub::faults::Faults {
        bytes_per_second: Some(2_000_000),
        ..Default::default()
    });
    let stopped = tokio::time::timeout(Duration::from_millis(2_500), scene.fetch()).await;
    assert!(stopped.is_err(), "slow enough to be stopped in the middle");
    assert!(parts(scene.dest.path()) > 0 && Manifest::read(scene.dest.path()).is_none());
    assert!(!scene.dest.path().join(shard_path(3)).exists());
    scene.hub.reset();
    scene.fetch().await.unwrap();
    scene.assert_whole();
    assert!(
        scene.hub.stats().bytes_served < TOTAL,
        "{REPO} went on from where it was"
    );
}
