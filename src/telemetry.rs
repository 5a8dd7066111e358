//! Logs, metrics and the operator's own HTTP endpoints (`/healthz`, `/readyz`, `/metrics`). It knows nothing of
//! Kubernetes or of KimiModels: the controller hands it numbers with labels from fixed sets.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing_subscriber::EnvFilter;

/// One label whose values come from an enum of ours, never from a name a user chose: series stay bounded.
type Label = [(&'static str, &'static str); 1];
type Labels2 = [(&'static str, &'static str); 2];

/// At most this many connections are served at once; a scraper and two probes need three.
const MAX_CONNECTIONS: usize = 32;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text for a person.
    Text,
    /// One JSON object a line, for a log collector.
    Json,
}

/// Sends `tracing` to stderr, filtered by `RUST_LOG` (default `info`).
pub fn init_logs(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// All models, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelCounts {
    /// By condition and its status, both from fixed sets.
    pub conditions: BTreeMap<(&'static str, &'static str), usize>,
    /// Whose weights are being fetched.
    pub downloading: usize,
}

/// Every metric of the operator. Cloning shares the same series.
#[derive(Clone, Debug)]
pub struct Metrics {
    reconciles: Family<Label, Counter>,
    errors: Family<Label, Counter>,
    reconcile_seconds: Histogram,
    writes: Family<Labels2, Counter>,
    phases: Family<Label, Histogram, fn() -> Histogram>,
    outage: Histogram,
    rollbacks: Counter,
    models: Family<Label, Gauge>,
    conditions: Family<Labels2, Gauge>,
    downloading: Gauge,
    orphans: Gauge,
    orphan_bytes: Gauge,
    polls: Family<Label, Counter>,
    fetched: Counter,
    leader: Gauge<i64>,
    resident: Gauge<i64>,
}

/// Phases take from a second (a bind) to a day (a download at 100 Mbit/s).
fn phase_histogram() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 2.0, 18))
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            reconciles: Family::default(),
            errors: Family::default(),
            reconcile_seconds: Histogram::new(exponential_buckets(0.001, 4.0, 8)),
            writes: Family::default(),
            phases: Family::new_with_constructor(phase_histogram),
            outage: Histogram::new([0.0, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1200.0, 3600.0]),
            rollbacks: Counter::default(),
            models: Family::default(),
            conditions: Family::default(),
            downloading: Gauge::default(),
            orphans: Gauge::default(),
            orphan_bytes: Gauge::default(),
            polls: Family::default(),
            fetched: Counter::default(),
            leader: Gauge::default(),
            resident: Gauge::default(),
        };
        let Self {
            reconciles,
            errors,
            reconcile_seconds,
            writes,
            phases,
            outage,
            rollbacks,
            models,
            conditions,
            downloading,
            orphans,
            orphan_bytes,
            polls,
            fetched,
            leader,
            resident,
        } = metrics.clone();
        registry.register("reconciles", "Finished reconciles by result", reconciles);
        registry.register(
            "reconcile_errors",
            "Failed reconciles by the step that failed",
            errors,
        );
        registry.register_with_unit(
            "reconcile_duration",
            "Time of one reconcile",
            Unit::Seconds,
            reconcile_seconds,
        );
        registry.register(
            "api_writes",
            "Writes sent to the API server by kind and verb",
            writes,
        );
        registry.register_with_unit(
            "phase_duration",
            "Time of one finished phase of a model",
            Unit::Seconds,
            phases,
        );
        registry.register_with_unit(
            "switch_outage",
            "Time without a ready endpoint during one switch of the served weights",
            Unit::Seconds,
            outage,
        );
        registry.register(
            "rollbacks",
            "Edits that were rolled back to the server before them",
            rollbacks,
        );
        registry.register(
            "models",
            "KimiModels by the status of their Ready condition",
            models,
        );
        registry.register(
            "conditions",
            "KimiModels by condition and its status",
            conditions,
        );
        registry.register(
            "downloading_models",
            "KimiModels whose weights are being fetched",
            downloading,
        );
        registry.register(
            "orphan_claims",
            "Retained PersistentVolumeClaims whose KimiModel is gone",
            orphans,
        );
        registry.register(
            "orphan_bytes",
            "Bytes requested by retained PersistentVolumeClaims whose KimiModel is gone",
            orphan_bytes,
        );
        registry.register(
            "progress_polls",
            "Reads of a fetch pod's /progress by result",
            polls,
        );
        registry.register(
            "fetched_bytes",
            "Bytes that fetch pods reported as downloaded",
            fetched,
        );
        registry.register(
            "leader",
            "1 where this operator acts, 0 where it stands by",
            leader,
        );
        registry.register(
            "resident_memory_bytes",
            "Resident memory of this process",
            resident,
        );
        metrics
    }

    /// Counts one finished reconcile; `failed_step` names the step that ended it early.
    pub fn reconciled(&self, failed_step: Option<&'static str>, took: Duration) {
        let result = if failed_step.is_some() { "error" } else { "ok" };
        self.reconciles.get_or_create(&[("result", result)]).inc();
        if let Some(step) = failed_step {
            self.errors.get_or_create(&[("step", step)]).inc();
        }
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Notes whether this operator acts or stands by.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Counts one write to the API server.
    pub fn wrote(&self, kind: &'static str, verb: &'static str) {
        self.writes
            .get_or_create(&[("kind", kind), ("verb", verb)])
            .inc();
    }

    /// Records a phase that has just ended.
    pub fn phase(&self, phase: &'static str, seconds: f64) {
        self.phases
            .get_or_create(&[("phase", phase)])
            .observe(seconds);
    }

    /// Records a finished switch.
    pub fn switched(&self, outage_seconds: f64) {
        self.outage.observe(outage_seconds);
    }

    /// Counts one edit that was rolled back.
    pub fn rolled_back(&self) {
        self.rollbacks.inc();
    }

    /// Sets how many models there are in each condition.
    pub fn models(&self, counts: &ModelCounts) {
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        for (&(kind, status), &count) in &counts.conditions {
            self.conditions
                .get_or_create(&[("condition", kind), ("status", status)])
                .set(gauge(count));
            if kind == "Ready" {
                self.models
                    .get_or_create(&[("ready", status)])
                    .set(gauge(count));
            }
        }
        self.downloading.set(gauge(counts.downloading));
    }

    /// Sets how many retained claims have no KimiModel, and their size.
    pub fn orphans(&self, claims: usize, bytes: u64) {
        self.orphans.set(i64::try_from(claims).unwrap_or(i64::MAX));
        self.orphan_bytes
            .set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Counts one read of `/progress` and the bytes that came in since the previous one.
    pub fn polled(&self, ok: bool, new_bytes: u64) {
        self.polls
            .get_or_create(&[("result", if ok { "ok" } else { "error" })])
            .inc();
        self.fetched.inc_by(new_bytes);
    }
}

/// The registry, the readiness flag and the model counts shared by the controller and the HTTP endpoints.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    metrics: Metrics,
    ready: AtomicBool,
}

impl Telemetry {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kimi_operator");
        let metrics = Metrics::register(&mut registry);
        Self {
            registry,
            metrics,
            ready: AtomicBool::new(false),
        }
    }

    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// `/readyz` answers 200 from now on: every watch has its first complete list.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET");
        }
        match path {
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" if self.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ok"),
            "/readyz" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "watches are not in sync yet",
            ),
            "/metrics" => self.scrape(),
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics",
            ),
        }
    }

    /// The metrics in OpenMetrics text.
    ///
    /// # Errors
    /// Never in practice: writing to a string does not fail.
    pub fn encode(&self) -> Result<String, std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            self.metrics.resident.set(bytes);
        }
        let mut text = String::with_capacity(4096);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn scrape(&self) -> Response<Full<Bytes>> {
        let Ok(body) = self.encode() else {
            return text(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics could not be encoded",
            );
        };
        let mut response = Response::new(Full::new(Bytes::from(body)));
        let kind =
            HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        response
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Resident set of this process from `/proc/self/status`; `None` where there is no procfs.
fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Binds the endpoints' address, so that a port in use is an error at start and not a log line later.
///
/// # Errors
/// The address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

/// Serves the endpoints until the task is dropped.
pub async fn serve(listener: TcpListener, telemetry: Arc<Telemetry>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: wait for some to close rather than spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let telemetry = Arc::clone(&telemetry);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = telemetry.answer(request.method(), request.uri().path());
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(30))
                .max_headers(32)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the endpoints ended early");
            }
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use http_body_util::BodyExt;

    use super::*;

    async fn get(telemetry: &Telemetry, path: &str) -> (u16, String) {
        let response = telemetry.answer(&Method::GET, path);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_waits_for_the_watches_and_liveness_does_not() {
        let telemetry = Telemetry::new();
        assert_eq!(get(&telemetry, "/healthz").await.0, 200);
        assert_eq!(get(&telemetry, "/readyz").await.0, 503);
        telemetry.set_ready();
        assert_eq!(get(&telemetry, "/readyz").await.0, 200);
        assert_eq!(get(&telemetry, "/").await.0, 404);
        assert_eq!(
            telemetry.answer(&Method::POST, "/metrics").status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    }

    #[tokio::test]
    async fn metrics_carry_only_fixed_labels() {
        let telemetry = Telemetry::new();
        let metrics = telemetry.metrics();
        metrics.reconciled(None, Duration::from_millis(2));
        metrics.reconciled(Some("observe"), Duration::from_millis(2));
        metrics.wrote("Job", "apply");
        metrics.phase("download", 12.0);
        metrics.switched(0.0);
        metrics.models(&ModelCounts {
            conditions: [(("Ready", "Unknown"), 3), (("Stalled", "True"), 2)].into(),
            downloading: 1,
        });
        metrics.polled(true, 42);
        let (status, body) = get(&telemetry, "/metrics").await;
        assert_eq!(status, 200);
        for line in [
            "kimi_operator_reconciles_total{result=\"ok\"} 1",
            "kimi_operator_reconcile_errors_total{step=\"observe\"} 1",
            "kimi_operator_api_writes_total{kind=\"Job\",verb=\"apply\"} 1",
            "kimi_operator_phase_duration_seconds_count{phase=\"download\"} 1",
            "kimi_operator_switch_outage_seconds_count 1",
            "kimi_operator_models{ready=\"Unknown\"} 3",
            "kimi_operator_conditions{condition=\"Stalled\",status=\"True\"} 2",
            "kimi_operator_downloading_models 1",
            "kimi_operator_fetched_bytes_total 42",
        ] {
            assert!(body.contains(line), "no line {line:?} in\n{body}");
        }
        assert!(
            !body.contains("resident_memory_bytes 0"),
            "resident memory is not read"
        );
    }

    #[tokio::test]
    async fn endpoints_answer_over_a_socket() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(Telemetry::new())));
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        server.abort();
    }
}
