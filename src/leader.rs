//! Leader election over one Lease: of several operators one acts, and the others keep their watches warm. Every change of
//! the Lease names the version it was read at, so the API server lets one candidate win. It must not know what the
//! leader does; what may be written, and until when, is [`Tenure`]'s.

mod fence;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::time::{Instant, sleep, timeout};

pub use self::fence::{Fenced, Tenure, fenced};

/// Others may take a Lease that was not renewed for this long.
const LEASE: Duration = Duration::from_secs(15);
/// A leader stops writing this long after the start of its last renewal: earlier than anybody may take the Lease, by
/// more than a request takes.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// Between two attempts, and the longest that one may take.
const RETRY: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_secs(5);
/// A Lease of another program's making may say anything; nobody waits longer than this.
const LONGEST_LEASE: Duration = Duration::from_secs(3600);

/// Why a leader must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    #[error("the Lease could not be renewed within {} s", RENEW_WITHIN.as_secs())]
    Expired,
    #[error("another operator holds the Lease")]
    Taken,
}

/// A candidate, and the leader once it has won.
#[derive(Debug)]
pub struct Election {
    leases: Leases,
    name: String,
    identity: String,
    tenure: Tenure,
    /// The Lease as this candidate last wrote it.
    mine: Option<Lease>,
    /// Another's Lease, and when it was first seen so: only this process's clock is compared with itself.
    seen: Option<(LeaseSpec, Instant)>,
}

struct Leases(Api<Lease>);

impl std::fmt::Debug for Leases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Api<Lease>")
    }
}

/// What an attempt does about the Lease it found.
#[derive(Debug, PartialEq)]
enum Move {
    Create(Lease),
    Replace(Lease),
    Wait,
}

impl Election {
    /// A candidate for the Lease `name` in the client's own namespace. The client must not be fenced by the same tenure.
    #[must_use]
    pub fn new(client: &Client, name: &str, host: &str) -> Self {
        // A restarted container has the host name of the one before, whose tenure is not its own.
        let suffix = RandomState::new().hash_one(host);
        Self {
            leases: Leases(Api::default_namespaced(client.clone())),
            name: name.to_owned(),
            identity: format!("{host}_{suffix:016x}"),
            tenure: Tenure::default(),
            mine: None,
            seen: None,
        }
    }

    /// The right to write that this candidacy may come to.
    #[must_use]
    pub fn tenure(&self) -> Tenure {
        self.tenure.clone()
    }

    /// Returns once this candidate is the leader.
    pub async fn campaign(&mut self) {
        let mut told = false;
        loop {
            match self.attempt().await {
                Ok(true) => {
                    tracing::info!(identity = self.identity, "leading");
                    return;
                }
                Ok(false) if told => {}
                Ok(false) => {
                    told = true;
                    let holder = self.seen.as_ref().and_then(|(spec, _)| holder(spec));
                    tracing::info!(holder, "another operator leads; standing by");
                }
                Err(error) => {
                    tracing::warn!(lease = self.name, %error, "cannot campaign for the Lease");
                }
            }
            sleep(RETRY).await;
        }
    }

    /// Renews until the Lease is lost.
    pub async fn hold(&mut self) -> Lost {
        loop {
            sleep(RETRY).await;
            if !self.tenure.holds() {
                return Lost::Expired;
            }
            match self.attempt().await {
                Ok(true) => {}
                Ok(false) => {
                    self.tenure.end();
                    return Lost::Taken;
                }
                Err(error) => tracing::warn!(lease = self.name, %error, "cannot renew the Lease"),
            }
        }
    }

    /// Gives the Lease back, so that another operator need not wait for its end.
    pub async fn release(&mut self) {
        let held = self.tenure.holds();
        self.tenure.end();
        let Some(mut lease) = self.mine.take().filter(|_| held) else {
            return;
        };
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        let params = PostParams::default();
        let written = self.leases.0.replace(&self.name, &params, &lease);
        match timeout(ATTEMPT, written).await {
            Ok(Ok(_)) => tracing::info!("gave the Lease back"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot give the Lease back"),
            Err(_) => tracing::warn!("cannot give the Lease back in time"),
        }
    }

    /// Takes or renews the Lease if that is allowed; true if it is this candidate's afterwards.
    async fn attempt(&mut self) -> Result<bool, kube::Error> {
        match timeout(ATTEMPT, self.try_once()).await {
            Ok(outcome) => outcome,
            // What was written is not known: the next attempt reads first.
            Err(_) => {
                self.mine = None;
                Err(kube::Error::Service("no answer in time".into()))
            }
        }
    }

    async fn try_once(&mut self) -> Result<bool, kube::Error> {
        let started = Instant::now();
        if let Some(lease) = self.mine.take() {
            let renewal = self.renewal(lease);
            if self.write(Move::Replace(renewal), started).await? {
                return Ok(true);
            }
        }
        let found = self.leases.0.get_opt(&self.name).await?;
        let next = self.decide(found, Instant::now());
        self.write(next, started).await
    }

    /// Writes what was decided. False if somebody else was faster, or it is not this candidate's turn.
    async fn write(&mut self, next: Move, started: Instant) -> Result<bool, kube::Error> {
        let params = PostParams::default();
        let written = match &next {
            Move::Create(lease) => self.leases.0.create(&params, lease).await,
            Move::Replace(lease) => self.leases.0.replace(&self.name, &params, lease).await,
            Move::Wait => return Ok(false),
        };
        match written {
            Ok(lease) => {
                self.mine = Some(lease);
                self.seen = None;
                // Counted from before the request: others count from after the API server took it.
                self.tenure.extend(started + RENEW_WITHIN);
                Ok(true)
            }
            // Changed, made or deleted by another in between.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn decide(&mut self, found: Option<Lease>, now: Instant) -> Move {
        let Some(lease) = found else {
            let metadata = ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            };
            return Move::Create(self.renewal(Lease {
                metadata,
                spec: None,
            }));
        };
        let spec = lease.spec.clone().unwrap_or_default();
        match holder(&spec) {
            None => Move::Replace(self.renewal(lease)),
            Some(holder) if holder == self.identity => Move::Replace(self.renewal(lease)),
            Some(_) => {
                let since = match &self.seen {
                    Some((seen, since)) if *seen == spec => *since,
                    _ => now,
                };
                let length = spec
                    .lease_duration_seconds
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .map_or(LEASE, Duration::from_secs)
                    .min(LONGEST_LEASE);
                self.seen = Some((spec, since));
                if now.duration_since(since) >= length {
                    Move::Replace(self.renewal(lease))
                } else {
                    Move::Wait
                }
            }
        }
    }

    /// The Lease as this candidate holds it from now on, at the version it was read at.
    fn renewal(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_default();
        if holder(spec) != Some(&self.identity) {
            let before = spec.lease_transitions.unwrap_or(0);
            spec.lease_transitions = Some(before.saturating_add(1));
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.identity.clone());
        }
        spec.lease_duration_seconds = i32::try_from(LEASE.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

/// Who holds the Lease; a Lease given back names nobody.
fn holder(spec: &LeaseSpec) -> Option<&str> {
    spec.holder_identity
        .as_deref()
        .filter(|holder| !holder.is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests;
