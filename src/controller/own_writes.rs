//! What was just written and no watch shows yet. A decision on a view older than one's own last write would be the same
//! one again, refused as a conflict or told twice. It must not know what a write means.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A watch that has not shown a write after this long is late, or the object was changed back or deleted in one go:
/// what it shows is then looked at.
const PATIENCE: Duration = Duration::from_secs(2);

/// Namespace and name of a KimiModel.
type Model = (String, String);

/// The writes of all models that no reconcile has seen in its view. An entry goes with the first look that shows it.
#[derive(Debug, Default)]
pub struct OwnWrites(Mutex<HashMap<Model, Vec<Write>>>);

#[derive(Debug)]
struct Write {
    kind: &'static str,
    name: String,
    /// The version that it replaced; none, where it made the object.
    before: Option<String>,
    at: Instant,
}

impl Write {
    /// How long it may still be waited for.
    fn left(&self, now: Instant) -> Option<Duration> {
        let left = PATIENCE.checked_sub(now.saturating_duration_since(self.at));
        left.filter(|left| !left.is_zero())
    }
}

impl OwnWrites {
    /// Remembers that `before` of an object became `after`.
    pub fn note(
        &self,
        (namespace, model): (&str, &str),
        (kind, name): (&'static str, &str),
        before: Option<String>,
        after: Option<String>,
        now: Instant,
    ) {
        // The write changed nothing, so that no watch will tell of it.
        if before == after {
            return;
        }
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Of a model that is gone nobody asks again.
        all.retain(|_, writes| writes.iter().any(|write| write.left(now).is_some()));
        let of_model = all.entry((namespace.to_owned(), model.to_owned()));
        let writes = of_model.or_default();
        writes.retain(|write| (write.kind, write.name.as_str()) != (kind, name));
        writes.push(Write {
            kind,
            name: name.to_owned(),
            before,
            at: now,
        });
    }

    /// How long to wait for the watches, where one of the model's objects is shown as it was before the last write to
    /// it. `shown` is the version that they show of an object of a kind and name.
    pub fn unseen(
        &self,
        (namespace, model): (&str, &str),
        shown: impl Fn(&str, &str) -> Option<String>,
        now: Instant,
    ) -> Option<Duration> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut entry) = all.entry((namespace.to_owned(), model.to_owned())) else {
            return None;
        };
        let writes = entry.get_mut();
        writes.retain(|write| {
            write.left(now).is_some() && shown(write.kind, &write.name) == write.before
        });
        let wait = writes.iter().filter_map(|write| write.left(now)).max();
        if wait.is_none() {
            entry.remove();
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: (&str, &str) = ("llm", "kimi");
    const SERVICE: (&str, &str) = ("Service", "kimi");

    fn version(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn a_view_older_than_the_own_write_waits_and_no_other() {
        let (writes, start) = (OwnWrites::default(), Instant::now());
        writes.note(MODEL, SERVICE, version("7"), version("8"), start);
        let old = |_: &str, _: &str| version("7");
        assert_eq!(writes.unseen(MODEL, old, start), Some(PATIENCE));
        assert_eq!(writes.unseen(("llm", "other"), old, start), None);
        let half = start + PATIENCE / 2;
        assert_eq!(writes.unseen(MODEL, old, half), Some(PATIENCE / 2));
        // Or whatever somebody made of it meanwhile.
        assert_eq!(writes.unseen(MODEL, |_, _| version("9"), half), None);
        assert_eq!(writes.unseen(MODEL, old, half), None, "forgotten");
    }

    #[test]
    fn an_object_that_was_made_is_waited_for_and_one_that_never_comes_is_not() {
        let (writes, start) = (OwnWrites::default(), Instant::now());
        writes.note(MODEL, ("Job", "kimi-fetch"), None, version("3"), start);
        let nothing = |_: &str, _: &str| None;
        assert!(writes.unseen(MODEL, nothing, start).is_some());
        let late = start + PATIENCE;
        assert_eq!(writes.unseen(MODEL, nothing, late), None);
        assert!(
            writes
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_empty()
        );
    }

    #[test]
    fn a_write_that_changed_nothing_is_not_waited_for_and_the_last_one_counts() {
        let (writes, start) = (OwnWrites::default(), Instant::now());
        writes.note(MODEL, SERVICE, version("7"), version("7"), start);
        assert_eq!(writes.unseen(MODEL, |_, _| version("7"), start), None);
        writes.note(MODEL, SERVICE, version("7"), version("8"), start);
        writes.note(MODEL, SERVICE, version("8"), version("9"), start);
        assert!(writes.unseen(MODEL, |_, _| version("8"), start).is_some());
        assert_eq!(writes.unseen(MODEL, |_, _| version("9"), start), None);
    }
}
