//! How long to wait before trying again: exponential with jitter, and the hub's own word where it gives one. Knows
//! time only.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// First and longest pause of its own accord.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);
/// The hub counts requests in windows of 300 s; a longer wait than two of them is not believed.
const LONGEST_ASKED: Duration = Duration::from_secs(600);

/// A failed attempt.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Trying again cannot help.
    Fatal(Error),
    /// Trying again may help, after the time that the other side asked for.
    Retry {
        error: Error,
        after: Option<Duration>,
    },
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Fatal(error)
    }
}

/// The pause after `strikes` failures in a row (from 1): between half and the whole of 0.5 s, 1 s, 2 s ... 60 s, so that
/// pods that failed together do not return together.
pub(crate) fn pause(strikes: u32, asked: Option<Duration>) -> Duration {
    let whole = FIRST
        .saturating_mul(1 << strikes.saturating_sub(1).min(16))
        .min(LONGEST);
    let jittered = whole.mul_f64(0.5 + 0.5 * random());
    match asked {
        // Never earlier than asked, and a little spread after it.
        Some(asked) => asked.min(LONGEST_ASKED) + Duration::from_secs_f64(random()),
        None => jittered,
    }
}

/// Uniform in [0, 1): std's hasher is seeded at random, which is all the randomness that jitter needs.
fn random() -> f64 {
    (RandomState::new().hash_one(0_u8) >> 11) as f64 / (1_u64 << 53) as f64
}

/// Repeats `attempt` until it succeeds, fails for good, or `patience` has passed.
pub(crate) async fn persist<T, F: Future<Output = Result<T, Trouble>>>(
    patience: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T, Error> {
    let deadline = Instant::now() + patience;
    let mut strikes = 0;
    loop {
        strikes += 1;
        let (error, after) = match attempt().await {
            Ok(value) => return Ok(value),
            Err(Trouble::Fatal(error)) => return Err(error),
            Err(Trouble::Retry { error, after }) => (error, after),
        };
        let pause = pause(strikes, after);
        if Instant::now() + pause > deadline {
            return Err(error);
        }
        tracing::warn!(%error, ?pause, "trying again");
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_the_hubs_word_wins() {
        assert!((250..=500).contains(&pause(1, None).as_millis()));
        assert!((30_000..=60_000).contains(&pause(40, None).as_millis()));
        let asked = pause(1, Some(Duration::from_secs(7)));
        assert!((7_000..=8_000).contains(&asked.as_millis()));
        assert!(
            pause(1, Some(Duration::from_secs(86_400))) <= LONGEST_ASKED + Duration::from_secs(1)
        );
    }
}
