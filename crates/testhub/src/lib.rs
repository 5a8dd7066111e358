//! Development only: a stand-in for the Hugging Face hub. It serves a directory laid out as `OWNER/REPO/...` with the
//! hub's API on one authority and file content behind signed, expiring URLs on a second one, and it injects faults.
//! It knows the hub's protocol and nothing of this project's downloader, so that it can be checked against the
//! official client instead.
#![forbid(unsafe_code)]

mod admin;
mod api;
mod body;
mod cdn;
pub mod clients;
mod errors;
pub mod faults;
mod repo;
mod resolve;
mod state;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::state::Shared;

/// How to run a stand-in.
#[derive(Debug, Clone)]
pub struct Config {
    /// Directory with `OWNER/REPO/files`.
    pub root: PathBuf,
    /// Where the hub's API and `resolve` listen.
    pub listen: SocketAddr,
    /// Where signed URLs are answered: another authority, as on the hub.
    pub cdn_listen: SocketAddr,
    /// The hub's own URL as clients see it, for `Link` headers; by default the request's `Host`.
    pub public_url: Option<String>,
    /// The second authority as clients see it; by default the request's host name with the CDN's port.
    pub cdn_url: Option<String>,
    /// Tokens with access to everything.
    pub tokens: Vec<String>,
    /// Tokens that are valid but have no access to gated and private repositories.
    pub outsiders: Vec<String>,
    /// Repositories whose files need an accepted token.
    pub gated: Vec<String>,
    /// Repositories that do not exist without an accepted token.
    pub private: Vec<String>,
    /// `(old, new)` names: the old one redirects.
    pub renamed: Vec<(String, String)>,
    /// How long a signed URL works.
    pub url_ttl: Duration,
    /// Tree entries per page.
    pub page_size: usize,
    /// Faults from the start; the admin endpoint replaces them.
    pub faults: faults::Faults,
}

impl Config {
    /// Serves `root` on two free ports of the loopback interface, without faults.
    pub fn local(root: impl Into<PathBuf>) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            root: root.into(),
            listen: any,
            cdn_listen: any,
            public_url: None,
            cdn_url: None,
            tokens: Vec::new(),
            outsiders: Vec::new(),
            gated: Vec::new(),
            private: Vec::new(),
            renamed: Vec::new(),
            url_ttl: Duration::from_secs(3600),
            page_size: 1000,
            faults: faults::Faults::default(),
        }
    }
}

/// A running stand-in. Dropping it closes both listeners.
#[derive(Debug)]
pub struct Hub {
    hub: SocketAddr,
    cdn: SocketAddr,
    state: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

impl Hub {
    /// Binds both listeners and serves until dropped.
    ///
    /// # Errors
    /// When the root is not a directory or an address cannot be bound.
    pub async fn start(config: Config) -> Result<Self> {
        let root = config
            .root
            .canonicalize()
            .with_context(|| format!("opening {}", config.root.display()))?;
        let listener = bind(config.listen).await?;
        let cdn_listener = bind(config.cdn_listen).await?;
        let (hub, cdn) = (listener.local_addr()?, cdn_listener.local_addr()?);
        let state = Arc::new(Shared::new(Config { root, ..config }, cdn.port()));
        let tasks = [
            serve(listener, hub_routes(state.clone())),
            serve(cdn_listener, cdn_routes(state.clone())),
        ];
        Ok(Self {
            hub,
            cdn,
            state,
            tasks,
        })
    }

    /// Base URL of the hub's API.
    pub fn url(&self) -> String {
        format!("http://{}", self.hub)
    }

    /// Base URL of the second authority.
    pub fn cdn_url(&self) -> String {
        format!("http://{}", self.cdn)
    }

    /// Replaces the faults.
    pub fn set_faults(&self, faults: faults::Faults) {
        self.state.set_faults(faults);
    }

    /// Faults in force, with what is left of their counts.
    pub fn faults(&self) -> faults::Faults {
        self.state.faults()
    }

    /// Counters since the start or the last reset.
    pub fn stats(&self) -> state::Stats {
        self.state.stats()
    }

    /// Counters to zero, faults off.
    pub fn reset(&self) {
        self.state.reset();
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

pub use state::Stats;

async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))
}

fn serve(listener: TcpListener, routes: Router) -> JoinHandle<()> {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, routes).await {
            tracing::error!(%error, "listener ended");
        }
    })
}

fn hub_routes(state: Arc<Shared>) -> Router {
    Router::new()
        .route("/api/models/{owner}/{repo}", get(api::info))
        .route(
            "/api/models/{owner}/{repo}/revision/{revision}",
            get(api::info_at),
        )
        .route("/api/models/{owner}/{repo}/tree/{revision}", get(api::tree))
        .route(
            "/api/models/{owner}/{repo}/tree/{revision}/{*path}",
            get(api::tree_below),
        )
        .route(
            "/{owner}/{repo}/resolve/{revision}/{*path}",
            get(resolve::resolve),
        )
        .route("/admin/faults", get(admin::faults).put(admin::set_faults))
        .route("/admin/stats", get(admin::stats))
        .route("/admin/reset", post(admin::reset))
        .with_state(state)
}

fn cdn_routes(state: Arc<Shared>) -> Router {
    Router::new()
        .route("/blob/{owner}/{repo}/{*path}", get(cdn::blob))
        .with_state(state)
}
