//! What all handlers share: configuration, faults in force, counters, the pace of file content, and who may read
//! what. Knows no routes.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use crate::Config;
use crate::errors::Refusal;
use crate::faults::{Fault, Faults, Place};
use crate::repo::{self, Digests, Repo, hex};

/// Counters for tests.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Body bytes of file content handed to the network.
    pub bytes_served: u64,
    /// The same by repository path.
    pub files: BTreeMap<String, u64>,
    /// Requests for metadata.
    pub api: u64,
    /// Requests to `resolve`.
    pub resolve: u64,
    /// Requests to signed URLs.
    pub cdn: u64,
    /// Requests on the second authority that carried an `Authorization` header: a leaked token.
    pub authorization_on_cdn: u64,
}

/// State of a running stand-in.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    cdn_port: u16,
    digests: Digests,
    faults: Mutex<Faults>,
    stats: Mutex<Stats>,
    /// When the next byte of file content may go out.
    next_byte: Mutex<Instant>,
}

/// A poisoned lock only means that a handler died between two plain assignments.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(config: Config, cdn_port: u16) -> Self {
        let faults = Mutex::new(config.faults.clone());
        Self {
            config,
            cdn_port,
            digests: Digests::default(),
            faults,
            stats: Mutex::default(),
            next_byte: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn faults(&self) -> Faults {
        lock(&self.faults).clone()
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    pub(crate) fn take_fault(&self, on: Place, path: &str) -> Option<Fault> {
        lock(&self.faults).take(on, path)
    }

    pub(crate) fn stats(&self) -> Stats {
        lock(&self.stats).clone()
    }

    pub(crate) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut lock(&self.stats));
    }

    pub(crate) fn reset(&self) {
        *lock(&self.stats) = Stats::default();
        self.set_faults(Faults::default());
    }

    /// Waits until `bytes` more may go out under the speed limit.
    pub(crate) async fn pace(&self, bytes: u64) {
        let Some(rate) = lock(&self.faults).bytes_per_second.filter(|rate| *rate > 0) else {
            return;
        };
        let at = {
            let mut next = lock(&self.next_byte);
            let at = (*next).max(Instant::now());
            *next = at + Duration::from_secs_f64(bytes as f64 / rate as f64);
            *next
        };
        tokio::time::sleep_until(at).await;
    }

    /// The repository at `revision`, if this caller may know of it.
    pub(crate) async fn repo(
        self: &Arc<Self>,
        name: &str,
        revision: &str,
        headers: &HeaderMap,
    ) -> Result<Repo, Refusal> {
        let token = self.access(headers)?;
        if self.config.private.iter().any(|n| n == name) && token != Access::Member {
            return Err(Refusal::repo_not_found(token == Access::Anonymous));
        }
        let repo = match self.read(name).await? {
            Some(repo) => repo,
            None => return Err(Refusal::repo_not_found(token == Access::Anonymous)),
        };
        if revision == "main" || revision == repo.commit {
            Ok(repo)
        } else {
            Err(Refusal::revision_not_found(revision))
        }
    }

    /// The repository whoever asks: for signed URLs, which carry their own permission.
    pub(crate) async fn stored(self: &Arc<Self>, name: &str) -> Result<Repo, Refusal> {
        self.read(name).await?.ok_or_else(Refusal::entry_not_found)
    }

    async fn read(self: &Arc<Self>, name: &str) -> Result<Option<Repo>, Refusal> {
        let (shared, name) = (Arc::clone(self), name.to_owned());
        let read = move || repo::read(&shared.config.root, &name, &shared.digests);
        let found = tokio::task::spawn_blocking(read)
            .await
            .map_err(io::Error::other)
            .flatten();
        found.map_err(|error| Refusal::internal(&error))
    }

    /// Whether this caller may read the files of `name`.
    pub(crate) fn check_gate(&self, name: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        if !self.config.gated.iter().any(|n| n == name) {
            return Ok(());
        }
        match self.access(headers)? {
            Access::Member => Ok(()),
            Access::Outsider => Err(Refusal::gated(name, 403)),
            Access::Anonymous => Err(Refusal::gated(name, 401)),
        }
    }

    fn access(&self, headers: &HeaderMap) -> Result<Access, Refusal> {
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Ok(Access::Anonymous);
        };
        let token = value
            .to_str()
            .ok()
            .and_then(|v| v.strip_prefix("Bearer "))
            .unwrap_or_default();
        if self.config.tokens.iter().any(|t| t == token) {
            Ok(Access::Member)
        } else if self.config.outsiders.iter().any(|t| t == token) {
            Ok(Access::Outsider)
        } else {
            Err(Refusal::bad_token())
        }
    }

    /// The hub's base URL as this caller sees it.
    pub(crate) fn public_url(&self, headers: &HeaderMap) -> String {
        let host = || {
            headers
                .get(HOST)
                .and_then(|h| h.to_str().ok())
                .unwrap_or("localhost")
        };
        self.config
            .public_url
            .clone()
            .unwrap_or_else(|| format!("http://{}", host()))
    }

    /// The second authority's base URL as this caller sees it.
    pub(crate) fn cdn_url(&self, headers: &HeaderMap) -> String {
        let host = || {
            headers
                .get(HOST)
                .and_then(|h| h.to_str().ok())
                .unwrap_or("localhost")
        };
        let name = || {
            host()
                .rsplit_once(':')
                .map_or(host(), |(name, _)| name)
                .to_owned()
        };
        self.config
            .cdn_url
            .clone()
            .unwrap_or_else(|| format!("http://{}:{}", name(), self.cdn_port))
    }

    /// Expiry of a URL signed now, in Unix seconds.
    pub(crate) fn expiry(&self) -> u64 {
        unix_seconds() + self.config.url_ttl.as_secs()
    }
}

/// Now, in Unix seconds.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// Signature over a path and its expiry. The key is no secret: it only has to make altered URLs fail.
pub(crate) fn sign(path: &str, expires: u64) -> String {
    hex(&Sha256::digest(format!("stand-in\n{path}\n{expires}\n")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    Anonymous,
    Outsider,
    Member,
}
