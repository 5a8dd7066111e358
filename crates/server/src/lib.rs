//! The OpenAI-compatible HTTP surface over the engine: [`router`] lists every route, [`conn`] runs
//! the connections and the drain, [`health`] answers probes from its own thread. It must not know
//! how tokens are computed, where weights come from, or Kubernetes.
#![forbid(unsafe_code)]

mod app;
mod auth;
mod body;
mod chat;
mod choice;
mod completions;
pub mod conn;
mod error;
mod generate;
pub mod health;
mod logprobs;
mod message;
mod metrics;
mod models;
mod openai;
mod props;
mod reply;
mod sampling;
mod stream;
mod tokens;
mod tools;
mod tracked;
mod usage;

use std::sync::Arc;

use axum::{
    Router, middleware,
    routing::{get, post},
};

pub use app::{App, Config, Phase};
pub use auth::{ApiKeys, KeyError};

/// Every route of the public port. `/health`, `/v1/health` and `/v1/models` need no API key.
pub fn router(app: Arc<App>) -> Router {
    let public = Router::new()
        .route("/health", get(health::public))
        .route("/v1/health", get(health::public))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*name}", get(models::one));
    let protected = Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/tokenizer_info", get(tokens::info))
        .route("/apply-template", post(tokens::apply_template))
        .route("/props", get(props::props))
        .route("/slots", get(props::slots))
        .route("/metrics", get(metrics::scrape))
        .route_layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            auth::require_key,
        ));
    public
        .merge(protected)
        .method_not_allowed_fallback(error::method_not_allowed)
        .fallback(error::no_such_route)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&app),
            metrics::observe,
        ))
        .with_state(app)
}
