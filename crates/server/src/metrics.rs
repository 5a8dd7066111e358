//! Counters and gauges for Prometheus: llama-server's names with the prefix `kimi_`, and the usual
//! ones of an HTTP server. It must not know prompts, keys or anything else of a request's content.

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::{IntoResponse, Response},
};
use engine::{Timings, Usage};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{
    app::{App, Phase},
    error::ApiError,
};

type Seconds = Counter<f64, AtomicU64>;
type Rate = Gauge<f64, AtomicU64>;

/// Route is a pattern of ours, never what the client asked for: the label set stays small.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
    code: u16,
}

/// All metrics of the process.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    prompt_tokens: Counter,
    prompt_seconds: Seconds,
    prompt_rate: Rate,
    cached_tokens: Counter,
    predicted_tokens: Counter,
    predicted_seconds: Seconds,
    predicted_rate: Rate,
    tokens_max: Gauge,
    processing: Gauge,
    deferred: Gauge,
    completed: Counter,
    refused: Counter,
    cancelled: Counter,
    queued_seconds: Histogram,
    load_bytes: Gauge,
    load_total: Gauge,
    phase: Gauge,
    uptime: Gauge,
    http_requests: Family<RouteLabels, Counter>,
    http_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let buckets = || [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
        let mut all = Self {
            registry: Registry::with_prefix("kimi"),
            prompt_tokens: Counter::default(),
            prompt_seconds: Seconds::default(),
            prompt_rate: Rate::default(),
            cached_tokens: Counter::default(),
            predicted_tokens: Counter::default(),
            predicted_seconds: Seconds::default(),
            predicted_rate: Rate::default(),
            tokens_max: Gauge::default(),
            processing: Gauge::default(),
            deferred: Gauge::default(),
            completed: Counter::default(),
            refused: Counter::default(),
            cancelled: Counter::default(),
            queued_seconds: Histogram::new(buckets()),
            load_bytes: Gauge::default(),
            load_total: Gauge::default(),
            phase: Gauge::default(),
            uptime: Gauge::default(),
            http_requests: Family::default(),
            http_seconds: Histogram::new(buckets()),
        };
        all.register();
        all
    }

    /// Counters get their `_total` from the encoder.
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register(
            "prompt_tokens",
            "Prompt tokens evaluated",
            self.prompt_tokens.clone(),
        );
        r.register(
            "prompt_seconds",
            "Time spent evaluating prompts",
            self.prompt_seconds.clone(),
        );
        r.register(
            "prompt_tokens_seconds",
            "Prompt tokens per second, on average",
            self.prompt_rate.clone(),
        );
        r.register(
            "prompt_cached_tokens",
            "Prompt tokens taken from the KV cache",
            self.cached_tokens.clone(),
        );
        r.register(
            "tokens_predicted",
            "Tokens generated",
            self.predicted_tokens.clone(),
        );
        r.register(
            "tokens_predicted_seconds",
            "Time spent generating",
            self.predicted_seconds.clone(),
        );
        r.register(
            "predicted_tokens_seconds",
            "Tokens generated per second, on average",
            self.predicted_rate.clone(),
        );
        r.register(
            "n_tokens_max",
            "Most tokens one request has had, prompt and answer",
            self.tokens_max.clone(),
        );
        r.register(
            "requests_processing",
            "Requests in slots",
            self.processing.clone(),
        );
        r.register(
            "requests_deferred",
            "Requests waiting for a slot",
            self.deferred.clone(),
        );
        r.register(
            "requests_completed",
            "Requests answered in full",
            self.completed.clone(),
        );
        r.register(
            "requests_refused",
            "Requests refused because the queue was full",
            self.refused.clone(),
        );
        r.register(
            "requests_cancelled",
            "Requests whose client left before the end",
            self.cancelled.clone(),
        );
        r.register(
            "request_queued_seconds",
            "Wait for a slot",
            self.queued_seconds.clone(),
        );
        r.register(
            "load_bytes",
            "Bytes of weights read",
            self.load_bytes.clone(),
        );
        r.register(
            "load_bytes_expected",
            "Bytes of weights in all",
            self.load_total.clone(),
        );
        r.register(
            "phase",
            "0 loading, 1 ready, 2 draining",
            self.phase.clone(),
        );
        r.register(
            "uptime_seconds",
            "Time since the process started to load",
            self.uptime.clone(),
        );
        r.register(
            "http_requests",
            "Responses by route and status",
            self.http_requests.clone(),
        );
        r.register(
            "http_request_seconds",
            "Time to the response's headers",
            self.http_seconds.clone(),
        );
    }

    pub(crate) fn finished(&self, usage: &Usage, timings: &Timings) {
        self.completed.inc();
        self.prompt_tokens.inc_by(
            usage
                .prompt_tokens
                .saturating_sub(usage.cached_tokens)
                .into(),
        );
        self.cached_tokens.inc_by(usage.cached_tokens.into());
        self.prompt_seconds.inc_by(timings.prefill.as_secs_f64());
        self.predicted_tokens.inc_by(usage.completion_tokens.into());
        self.predicted_seconds.inc_by(timings.decode.as_secs_f64());
        self.queued_seconds.observe(timings.queued.as_secs_f64());
        let tokens = i64::from(usage.prompt_tokens) + i64::from(usage.completion_tokens);
        if tokens > self.tokens_max.get() {
            self.tokens_max.set(tokens);
        }
    }

    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn cancelled(&self) {
        self.cancelled.inc();
    }

    /// Seconds until a place in the queue is likely: the mean time of a request so far.
    pub(crate) fn retry_after(&self) -> u64 {
        let mean = (self.prompt_seconds.get() + self.predicted_seconds.get())
            / self.completed.get().max(1) as f64;
        Duration::try_from_secs_f64(mean.ceil()).map_or(1, |mean| mean.as_secs().clamp(1, 60))
    }

    /// All metrics as OpenMetrics text, gauges brought up to date first.
    fn text(&self, app: &App) -> Result<String, std::fmt::Error> {
        let gauge = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        let slots = app.engine().map_or(0, |engine| engine.info().slots);
        gauge(&self.processing, app.in_flight().min(slots) as u64);
        gauge(&self.deferred, app.in_flight().saturating_sub(slots) as u64);
        let (loaded, total) = app.load_bytes();
        gauge(&self.load_bytes, loaded);
        gauge(&self.load_total, total);
        gauge(&self.uptime, app.uptime().as_secs());
        self.phase.set(match app.phase() {
            Phase::Loading => 0,
            Phase::Ready => 1,
            Phase::Draining => 2,
        });
        self.prompt_rate
            .set(average(&self.prompt_tokens, &self.prompt_seconds));
        self.predicted_rate
            .set(average(&self.predicted_tokens, &self.predicted_seconds));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn average(tokens: &Counter, seconds: &Seconds) -> f64 {
    let seconds = seconds.get();
    if seconds > 0.0 {
        tokens.get() as f64 / seconds
    } else {
        0.0
    }
}

/// `GET /metrics`, on the public port (with the API key) and on the health port.
pub(crate) async fn scrape(State(app): State<Arc<App>>) -> Response {
    match app.metrics.text(&app) {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => ApiError::Engine(error.to_string()).into_response(),
    }
}

/// Counts and times every response.
pub(crate) async fn observe(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("none", MatchedPath::as_str)
        .to_owned();
    let response = next.run(request).await;
    let code = response.status().as_u16();
    app.metrics
        .http_requests
        .get_or_create(&RouteLabels { route, code })
        .inc();
    app.metrics
        .http_seconds
        .observe(started.elapsed().as_secs_f64());
    response
}
