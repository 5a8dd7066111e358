//! How far a fetch is: the JSON of `GET /progress` and the counters behind it. Knows neither HTTP nor terminals.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;

/// Speed is the mean over this long.
const WINDOW: Duration = Duration::from_secs(10);

/// What a fetch is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    #[default]
    Listing,
    Downloading,
    Verifying,
    Done,
    Failed,
}

/// A moment of a fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    pub state: State,
    /// Of all shards together; 0 while listing.
    pub bytes: u64,
    /// Bytes received, those of earlier runs included.
    pub downloaded: u64,
    pub bytes_per_second: u64,
    /// Unknown while nothing moves.
    pub eta_seconds: Option<u64>,
    pub shards: u32,
    /// Shards that are verified.
    pub shards_done: u32,
    /// Why it waits or failed, in words; often empty.
    pub message: String,
}

/// Counters that the transfer moves and a ticker turns into [`Progress`].
#[derive(Debug)]
pub(crate) struct Meter {
    sender: watch::Sender<Progress>,
    downloaded: AtomicU64,
    shards_done: AtomicU32,
    samples: Mutex<VecDeque<(Instant, u64)>>,
    message: Mutex<String>,
}

impl Meter {
    pub(crate) fn new(sender: watch::Sender<Progress>) -> Self {
        let (downloaded, shards_done) = (AtomicU64::new(0), AtomicU32::new(0));
        Self {
            sender,
            downloaded,
            shards_done,
            samples: Mutex::default(),
            message: Mutex::default(),
        }
    }

    pub(crate) fn start(&self, bytes: u64, shards: usize) {
        let shards = u32::try_from(shards).unwrap_or(u32::MAX);
        self.sender
            .send_modify(|progress| (progress.bytes, progress.shards) = (bytes, shards));
    }

    pub(crate) fn enter(&self, state: State) {
        self.sender.send_modify(|progress| progress.state = state);
        self.tick();
    }

    pub(crate) fn add(&self, bytes: u64) {
        self.downloaded.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that have to come again.
    pub(crate) fn take_back(&self, bytes: u64) {
        // One thread at a time takes back, and never more than was added.
        self.downloaded.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(crate) fn shard_done(&self) {
        self.shards_done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn say(&self, message: impl Into<String>) {
        *self.message.lock().unwrap_or_else(PoisonError::into_inner) = message.into();
        self.tick();
    }

    /// Publishes the counters.
    pub(crate) fn tick(&self) {
        let (now, downloaded) = (Instant::now(), self.downloaded.load(Ordering::Relaxed));
        let speed = {
            let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
            // A download that went backwards starts its measure anew.
            if samples.back().is_some_and(|(_, last)| *last > downloaded) {
                samples.clear();
            }
            samples.push_back((now, downloaded));
            while samples.len() > 2 && samples.front().is_some_and(|(at, _)| now - *at > WINDOW) {
                samples.pop_front();
            }
            let first = samples.front().copied().unwrap_or((now, downloaded));
            let seconds = (now - first.0).as_secs_f64();
            if seconds > 0.2 {
                ((downloaded - first.1) as f64 / seconds) as u64
            } else {
                0
            }
        };
        let message = self
            .message
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        self.sender.send_modify(|progress| {
            progress.downloaded = downloaded;
            progress.bytes_per_second = speed;
            progress.eta_seconds = progress.bytes.saturating_sub(downloaded).checked_div(speed);
            progress.shards_done = self.shards_done.load(Ordering::Relaxed);
            progress.message = message;
        });
    }

    /// The bytes that existing files and ledgers already hold count as downloaded, but not as speed.
    pub(crate) fn resume(&self, bytes: u64) {
        self.add(bytes);
        self.samples
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
