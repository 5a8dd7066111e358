//! Probes. Liveness and readiness answer from their own OS thread and port, so that a busy or stuck
//! serving runtime can neither fail nor fake them. It must not know what Kubernetes does with them.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;

use crate::{
    app::{App, Phase},
    error::ApiError,
    metrics, usage,
};

/// `GET /health` of the public port, as llama-server answers it.
pub(crate) async fn public(State(app): State<Arc<App>>) -> Response {
    if app.phase() == Phase::Draining {
        return ApiError::Draining.into_response();
    }
    match app.engine() {
        Ok(_) => Json(serde_json::json!({"status": "ok"})).into_response(),
        Err(error) => error.into_response(),
    }
}

#[derive(Debug, Serialize)]
struct Status {
    status: &'static str,
    message: String,
}

/// Alive unless the engine is gone, or has made no progress for long while it has work.
async fn livez(State(app): State<Arc<App>>) -> Response {
    if app.engine_stopped() {
        return fail("the engine has stopped".to_owned());
    }
    match app.stuck_for() {
        Some(time) => fail(format!("no progress for {} s", time.as_secs())),
        None => ok(describe(&app)),
    }
}

/// Ready between the self-test and the drain.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    match app.phase() {
        Phase::Ready if !app.engine_stopped() => ok(describe(&app)),
        _ => fail(describe(&app)),
    }
}

fn describe(app: &App) -> String {
    match app.phase() {
        Phase::Loading => {
            let (loaded, total) = app.load_bytes();
            format!("loading: {loaded} of {total} bytes")
        }
        Phase::Ready => "ready".to_owned(),
        Phase::Draining => format!("draining: {} requests in flight", app.in_flight()),
    }
}

fn ok(message: String) -> Response {
    Json(Status {
        status: "ok",
        message,
    })
    .into_response()
}

fn fail(message: String) -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        Json(Status {
            status: "fail",
            message,
        }),
    )
        .into_response()
}

/// Every route of the health port. Metrics are here too: no key is needed, as the port is not part
/// of the Service.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::scrape))
        .route("/usage", get(usage::usage))
        .with_state(app)
}

/// Serves the health port from a thread of its own until the process ends.
///
/// # Errors
/// The address cannot be bound, or the thread or its runtime cannot be made.
pub fn spawn(app: Arc<App>, address: SocketAddr) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(address)?;
    let bound = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::Builder::new()
        .name("health".to_owned())
        .spawn(move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                axum::serve(listener, router(app)).await
            });
            if let Err(error) = served {
                tracing::error!(%error, "the health port ended");
            }
        })?;
    Ok(bound)
}
