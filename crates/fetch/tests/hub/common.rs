//! A hub stand-in over made-up shards, and a fetch from it with short patience. Shared by the tests of this crate.

use std::fs;
use std::path::Path;
use std::time::Duration;

use fetch::{Artifact, Error, Hub, Manifest, Options, Progress, Source, Token};
use tempfile::TempDir;
use testhub::faults::{Fault, Faults, Place, Rule};
use tokio::sync::watch;

pub(crate) const REPO: &str = "acme/Model-GGUF";
/// Bytes of each of the three shards of `Q4_K_M`.
pub(crate) const SHARD: usize = 3_000_000;
pub(crate) const TOTAL: u64 = 3 * SHARD as u64;

/// A running stand-in and where its files are.
pub(crate) struct Scene {
    pub(crate) hub: testhub::Hub,
    pub(crate) root: TempDir,
    pub(crate) dest: TempDir,
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut out: Vec<u8> = (0..bytes.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .collect();
    out.truncate(bytes);
    out
}

pub(crate) fn shard_path(no: usize) -> String {
    format!("Q4_K_M/Model-Q4_K_M-{no:05}-of-00003.gguf")
}

pub(crate) fn put(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(REPO).join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

impl Scene {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut testhub::Config)) -> Self {
        let (root, dest) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for no in 1..=3 {
            put(root.path(), &shard_path(no), &content(no as u64, SHARD));
        }
        put(root.path(), "Model-Q8_0.gguf", &content(8, 100_000));
        put(root.path(), "README.md", b"# Model");
        let mut config = testhub::Config::local(root.path());
        change(&mut config);
        Self {
            hub: testhub::Hub::start(config).await.unwrap(),
            root,
            dest,
        }
    }

    pub(crate) fn client(&self, token: Option<&str>) -> Hub {
        Hub::new(&self.hub.url(), token.and_then(Token::new))
            .unwrap()
            .with_patience(Duration::from_secs(8))
    }

    pub(crate) fn source(&self, quant: &str) -> Source {
        Source {
            repo: REPO.into(),
            revision: "main".into(),
            path: None,
            quant: quant.into(),
        }
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            connections: 4,
            stall: Duration::from_secs(1),
            min_bytes_per_second: 1_000,
            patience: Duration::from_secs(10),
            ..Options::new(self.dest.path())
        }
    }

    pub(crate) async fn find(&self) -> Artifact {
        Artifact::find(&self.client(None), &self.source("Q4_K_M"))
            .await
            .unwrap()
    }

    pub(crate) async fn fetch(&self) -> Result<Manifest, Error> {
        self.fetch_watched(watch::Sender::default()).await
    }

    pub(crate) async fn fetch_watched(
        &self,
        progress: watch::Sender<Progress>,
    ) -> Result<Manifest, Error> {
        let artifact = Artifact::find(&self.client(None), &self.source("Q4_K_M")).await?;
        fetch::fetch(&self.client(None), &artifact, &self.options(), progress).await
    }

    /// Faults from `rules`, counters from zero.
    pub(crate) fn faults(&self, rules: Vec<Rule>) {
        self.hub.reset();
        self.hub.set_faults(Faults {
            rules,
            ..Faults::default()
        });
    }

    /// Every shard is there byte for byte, the manifest says so, and nothing unfinished is left.
    pub(crate) fn assert_whole(&self) {
        for no in 1..=3 {
            let got = fs::read(self.dest.path().join(shard_path(no))).unwrap();
            assert!(got == content(no as u64, SHARD), "shard {no} differs");
        }
        let manifest = Manifest::read(self.dest.path()).unwrap();
        assert!(manifest.is_whole(self.dest.path()) && manifest.bytes == TOTAL);
        assert!(manifest.files[0].path == shard_path(1) && manifest.files.len() == 3);
        assert_eq!(parts(self.dest.path()), 0, "no part files are left");
    }
}

/// Part files on a volume.
pub(crate) fn parts(dest: &Path) -> usize {
    let names = fs::read_dir(dest.join(".kimi"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    names
        .filter(|path| path.extension().is_some_and(|e| e == "part"))
        .count()
}

pub(crate) fn rule(on: Place, fault: Fault, count: u32) -> Rule {
    Rule {
        on,
        fault,
        path: None,
        count: Some(count),
    }
}
