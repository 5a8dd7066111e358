//! What all handlers share: the names served, the engine once it is loaded, and the phase of the
//! process's life. It must not know requests or responses.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use engine::{Handle, Progress};
use tokio::sync::watch;

use crate::{auth::ApiKeys, error::ApiError, metrics::Metrics};

/// How to serve.
#[derive(Debug, Default)]
pub struct Config {
    /// Names a request may use for the model; the first one is the model's own. Empty: the name in
    /// the model's file.
    pub names: Vec<String>,
    /// Keys that requests must carry; `None` serves anybody.
    pub api_keys: Option<ApiKeys>,
    /// What the deployment calls the weights' quant; `None` takes the file's own word.
    pub quant: Option<String>,
    /// The deployment's id of the weights, `local` where there is none.
    pub artifact: Option<String>,
}

/// The life of a serving process; it only moves forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Reading weights or testing them; requests get 503.
    Loading,
    /// Serving.
    Ready,
    /// Told to end: serving what comes, telling every client to connect elsewhere.
    Draining,
}

/// Without progress for this long, a loading or working engine counts as stuck: the heartbeat is
/// touched for every few rows of weights, so even the slowest disk moves it within seconds.
const STUCK_AFTER: Duration = Duration::from_secs(120);

/// State shared by the routers, the connections and the health thread.
#[derive(Debug)]
pub struct App {
    pub(crate) config: Config,
    pub(crate) metrics: Metrics,
    progress: Arc<Progress>,
    engine: OnceLock<Handle>,
    phase: watch::Sender<Phase>,
    in_flight: AtomicUsize,
    engine_stopped: AtomicBool,
    started: Instant,
}

impl App {
    /// A server whose engine is still loading; `progress` is the load's heartbeat.
    pub fn new(config: Config, progress: Arc<Progress>) -> Arc<Self> {
        Arc::new(Self {
            config,
            metrics: Metrics::new(),
            progress,
            engine: OnceLock::new(),
            phase: watch::Sender::new(Phase::Loading),
            in_flight: AtomicUsize::new(0),
            engine_stopped: AtomicBool::new(false),
            started: Instant::now(),
        })
    }

    /// Opens for requests. Call it once the self-test has passed.
    pub fn ready(&self, engine: Handle) {
        if self.engine.set(engine).is_ok() {
            // Those of the load are nobody's answer.
            self.metrics
                .faults
                .begin(engine::major_faults().unwrap_or(0));
            self.advance(Phase::Ready);
        }
    }

    /// Starts the drain; see [`crate::conn::serve`] for what it means for connections.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// Where the process is in its life.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(crate) fn watch_phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = *phase < to;
            if later {
                *phase = to;
            }
            later
        });
    }

    /// The engine, or why it cannot be used now. A draining server still serves.
    pub(crate) fn engine(&self) -> Result<&Handle, ApiError> {
        if self.engine_stopped() {
            return Err(ApiError::EngineStopped);
        }
        self.engine.get().ok_or_else(|| ApiError::Loading {
            loaded: self.progress.bytes_loaded(),
            total: self.progress.bytes_total(),
        })
    }

    /// Names of the model, the canonical one first; none while loading without configured names.
    pub(crate) fn names(&self) -> Vec<&str> {
        if self.config.names.is_empty() {
            return self
                .engine
                .get()
                .map(|engine| engine.info().name.as_str())
                .into_iter()
                .collect();
        }
        self.config.names.iter().map(String::as_str).collect()
    }

    /// `system_fingerprint` of every answer: it changes when other weights answer.
    pub(crate) fn fingerprint(&self) -> String {
        let quant = self.config.quant.as_deref();
        let quant = quant.or_else(|| self.engine.get().map(|engine| engine.info().quant.as_str()));
        let artifact = self.config.artifact.as_deref().unwrap_or("local");
        format!("{}-{artifact}", quant.unwrap_or("unknown"))
    }

    /// Bytes of weights read so far and in all.
    pub(crate) fn load_bytes(&self) -> (u64, u64) {
        (self.progress.bytes_loaded(), self.progress.bytes_total())
    }

    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The engine's thread is gone; no request can be served again in this process.
    pub(crate) fn mark_engine_stopped(&self) {
        self.engine_stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn engine_stopped(&self) -> bool {
        self.engine_stopped.load(Ordering::Relaxed)
    }

    /// Requests handed to the engine and not yet answered in full.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    pub(crate) fn request_started(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn request_ended(&self) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// For how long a loading or working engine has made no progress, when that is too long.
    pub(crate) fn stuck_for(&self) -> Option<Duration> {
        let since = self.progress.since_touch();
        let busy = self.phase() == Phase::Loading || self.in_flight() > 0;
        (busy && since >= STUCK_AFTER).then_some(since)
    }
}
