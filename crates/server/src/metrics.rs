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
use engine::{SlotStatus, Timings, Usage};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Metric, Registry},
};

use crate::{
    app::{App, Phase},
    error::ApiError,
    usage::Faults,
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
    slots: Gauge,
    cache_tokens: Gauge,
    cache_ratio: Rate,
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
    working_set: Gauge,
    anonymous: Gauge,
    faults_per_token: Gauge,
    pub(crate) faults: Faults,
    http_requests: Family<RouteLabels, Counter>,
    http_seconds: Histogram,
}

impl Metrics {
    /// Counters get their `_total` from the encoder.
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("kimi");
        let r = &mut registry;
        Self {
            prompt_tokens: metric(r, "prompt_tokens", "Prompt tokens evaluated"),
            prompt_seconds: metric(r, "prompt_seconds", "Time spent evaluating prompts"),
            prompt_rate: metric(r, "prompt_tokens_seconds", "Mean prompt tokens per second"),
            cached_tokens: metric(r, "prompt_cached_tokens", "Prompt tokens from the KV cache"),
            predicted_tokens: metric(r, "tokens_predicted", "Tokens generated"),
            predicted_seconds: metric(r, "tokens_predicted_seconds", "Time spent generating"),
            predicted_rate: metric(r, "predicted_tokens_seconds", "Mean tokens per second"),
            tokens_max: metric(
                r,
                "n_tokens_max",
                "Most tokens of a request, prompt and answer",
            ),
            slots: metric(r, "slots", "Requests that can be served at the same time"),
            cache_tokens: metric(r, "kv_cache_tokens", "Tokens in the KV caches of all slots"),
            cache_ratio: metric(r, "kv_cache_usage_ratio", "Part of the KV caches in use"),
            processing: metric(r, "requests_processing", "Requests in slots"),
            deferred: metric(r, "requests_deferred", "Requests waiting for a slot"),
            completed: metric(r, "requests_completed", "Requests answered in full"),
            refused: metric(
                r,
                "requests_refused",
                "Requests refused as the queue was full",
            ),
            cancelled: metric(r, "requests_cancelled", "Requests whose client left early"),
            queued_seconds: histogram(r, "request_queued_seconds", "Wait for a slot"),
            load_bytes: metric(r, "load_bytes", "Bytes of weights read"),
            load_total: metric(r, "load_bytes_expected", "Bytes of weights in all"),
            phase: metric(r, "phase", "0 loading, 1 ready, 2 draining"),
            uptime: metric(
                r,
                "uptime_seconds",
                "Time since the process started to load",
            ),
            working_set: metric(
                r,
                "memory_working_set_bytes",
                "Memory as the kubelet counts it, mapped weights included",
            ),
            anonymous: metric(
                r,
                "memory_anonymous_bytes",
                "Memory that is no file: heap, stacks, KV cache",
            ),
            faults_per_token: metric(
                r,
                "major_faults_per_token",
                "Waits for a page from the disk per token of the last answer",
            ),
            faults: Faults::new(),
            http_requests: metric(r, "http_requests", "Responses by route and status"),
            http_seconds: histogram(r, "http_request_seconds", "Time to the response's headers"),
            registry,
        }
    }

    pub(crate) fn finished(&self, usage: &Usage, timings: &Timings) {
        self.completed.inc();
        if let Some(count) = engine::major_faults() {
            let tokens = usage.prompt_tokens.saturating_sub(usage.cached_tokens);
            let tokens = u64::from(tokens) + u64::from(usage.completion_tokens);
            self.faults.note(tokens, count);
        }
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

    /// The mean of all answers; `None` before the first.
    pub(crate) fn milli_tokens_per_second(&self) -> Option<u64> {
        let rate = average(&self.predicted_tokens, &self.predicted_seconds) * 1000.0;
        (rate >= 1.0).then_some(rate as u64)
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
        if let Ok(engine) = app.engine() {
            let slots = engine.status().slots();
            let cached = |slot: &SlotStatus| u64::from(slot.cached_tokens);
            let tokens: u64 = slots.iter().map(cached).sum();
            let room = slots.len() as u64 * u64::from(engine.info().context);
            gauge(&self.slots, slots.len() as u64);
            gauge(&self.cache_tokens, tokens);
            self.cache_ratio.set(tokens as f64 / room.max(1) as f64);
            gauge(&self.processing, engine.status().busy() as u64);
            gauge(&self.deferred, engine.waiting() as u64);
        }
        let (loaded, total) = app.load_bytes();
        gauge(&self.load_bytes, loaded);
        gauge(&self.load_total, total);
        gauge(&self.uptime, app.uptime().as_secs());
        if let Some(memory) = engine::memory_usage() {
            gauge(&self.working_set, memory.working_set);
            gauge(&self.anonymous, memory.anonymous);
        }
        gauge(&self.faults_per_token, self.faults.per_token().unwrap_or(0));
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

/// A new metric that the registry knows.
fn metric<M: Metric + Default + Clone>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(registry: &mut Registry, name: &str, help: &str) -> Histogram {
    let buckets = [0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0];
    let histogram = Histogram::new(buckets);
    registry.register(name, help, histogram.clone());
    histogram
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
    tracing::debug!(
        route,
        code,
        seconds = started.elapsed().as_secs_f64(),
        "answered"
    );
    app.metrics
        .http_requests
        .get_or_create(&RouteLabels { route, code })
        .inc();
    app.metrics
        .http_seconds
        .observe(started.elapsed().as_secs_f64());
    response
}
