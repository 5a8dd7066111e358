//! What serving costs, measured: memory as the kubelet counts it, tokens per second, and how often a token waits for the
//! disk. It must not know what was planned.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use std::time::{Duration, Instant};

use axum::{Json, extract::State};
use serde::Serialize;

use crate::app::App;

/// Waits for a page per token from which on weights count as read from the disk again and again. Resident weights have
/// none; one expert that is not resident has dozens, since the kernel reads it in pieces.
const THRASHING: u64 = 100;
/// Between two warnings.
const QUIET: Duration = Duration::from_secs(60);

/// The JSON of `GET /usage`. A figure that cannot be read is absent.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    #[serde(skip_serializing_if = "Option::is_none")]
    working_set_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    anonymous_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit_bytes: Option<u64>,
    /// Mean over all answers, in thousandths; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    milli_tokens_per_second: Option<u64>,
    /// Of the last answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    major_faults_per_token: Option<u64>,
    thrashing: bool,
    /// The first file of the weights that is not what was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    weights_changed: Option<String>,
}

/// `GET /usage`, on the health port.
pub(crate) async fn usage(State(app): State<Arc<App>>) -> Json<Usage> {
    let faults = app.metrics.faults.per_token();
    let milli_tokens_per_second = app.metrics.milli_tokens_per_second();
    // A volume may keep a look at it waiting, and this thread answers the probes.
    let looked = tokio::task::spawn_blocking(move || weights_changed(&app));
    let weights_changed = looked.await.unwrap_or_default();
    let memory = engine::memory_usage();
    Json(Usage {
        working_set_bytes: memory.map(|memory| memory.working_set),
        anonymous_bytes: memory.map(|memory| memory.anonymous),
        limit_bytes: engine::memory_limit(),
        milli_tokens_per_second,
        major_faults_per_token: faults,
        thrashing: faults.is_some_and(|faults| faults >= THRASHING),
        weights_changed,
    })
}

/// The name of a file of the weights that somebody wrote to, replaced or took away since it was loaded.
fn weights_changed(app: &App) -> Option<String> {
    let engine = app.engine().ok()?;
    let file = engine.info().files.changed()?;
    tracing::error!(
        file = %file.display(),
        "a file of the weights is not what was loaded: the answers may be wrong; verify the files and start again"
    );
    let name = file.file_name().unwrap_or(file.as_os_str());
    Some(name.to_string_lossy().into_owned())
}

/// Major page faults from one answer to the next.
#[derive(Debug)]
pub(crate) struct Faults {
    /// The kernel's count at the end of the last answer.
    before: AtomicU64,
    /// `u64::MAX` before the first answer.
    per_token: AtomicU64,
    warned: Mutex<Option<Instant>>,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            before: AtomicU64::new(engine::major_faults().unwrap_or(0)),
            per_token: AtomicU64::new(u64::MAX),
            warned: Mutex::new(None),
        }
    }

    /// Notes that an answer of `tokens` ended at `count` faults. Faults of the load, before the first answer, are not
    /// the first answer's: they are forgotten by [`Self::begin`].
    pub(crate) fn note(&self, tokens: u64, count: u64) {
        let before = self.before.swap(count, Ordering::Relaxed);
        let per_token = count.saturating_sub(before) / tokens.max(1);
        self.per_token.store(per_token, Ordering::Relaxed);
        if per_token >= THRASHING && self.may_warn() {
            tracing::warn!(
                per_token,
                "thrashing: weights are read from the disk again and again; give the server more memory or a smaller \
                 quant"
            );
        }
    }

    /// Counts from here.
    pub(crate) fn begin(&self, count: u64) {
        self.before.store(count, Ordering::Relaxed);
    }

    pub(crate) fn per_token(&self) -> Option<u64> {
        Some(self.per_token.load(Ordering::Relaxed)).filter(|value| *value != u64::MAX)
    }

    fn may_warn(&self) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        let due = warned.is_none_or(|at| at.elapsed() >= QUIET);
        if due {
            *warned = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_counted_per_token_of_the_last_answer() {
        let faults = Faults::new();
        assert_eq!(faults.per_token(), None);
        faults.begin(1_000_000);
        faults.note(10, 1_002_000);
        assert_eq!(faults.per_token(), Some(200));
        faults.note(10, 1_002_005);
        assert_eq!(faults.per_token(), Some(0));
        // A count that went backwards, or an answer without a token, is no thrashing.
        faults.note(0, 1_000_000);
        assert_eq!(faults.per_token(), Some(0));
    }

    #[test]
    fn one_warning_a_minute() {
        let faults = Faults::new();
        assert!(faults.may_warn());
        assert!(!faults.may_warn());
    }
}
