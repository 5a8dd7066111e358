//! Plan and measurement side by side, and the word on whether memory is enough. A measurement that moved by less than a
//! twentieth is not news: an idle server would otherwise make an idle operator write. It must decide nothing.

use sizing::time::load_seconds;
use spec::format_bytes;

use super::{Inputs, Word, word};
use crate::controller::usage::Usage;
use crate::crd::{Measured, Pair, Timings};
use crate::names;
use crate::snapshot::{Snapshot, Workload};

/// A change below one part in this many leaves the old figure.
const NEWS: i64 = 20;

/// The workload that answers, and what its first ready pod measured.
fn answering(snapshot: &Snapshot) -> Option<(&Workload, &Usage)> {
    let active = snapshot.active()?;
    let pods = active
        .pods
        .iter()
        .filter(|pod| pod.ready && !pod.terminating);
    let usage = pods.filter_map(|pod| pod.usage.as_ref()).next()?;
    Some((active, usage))
}

/// Only of the target: the plan is about no other workload.
pub(super) fn measured(inputs: Inputs<'_>, timings: Option<&Timings>) -> Option<Measured> {
    let Inputs {
        snapshot,
        assessment,
        previous,
        ..
    } = inputs;
    let (active, usage) = answering(snapshot)?;
    let target = assessment
        .target
        .as_ref()
        .filter(|target| target.workload == active.id)?;
    let plan = assessment.plan.as_ref()?;
    let before = previous
        .and_then(|previous| previous.measured.clone())
        .unwrap_or_default();
    let Usage {
        working_set_bytes,
        anonymous_bytes,
        limit_bytes,
        milli_tokens_per_second,
        major_faults_per_token,
        thrashing: _,
        weights_changed: _,
    } = *usage;
    Some(Measured {
        ram_bytes: pair(Some(plan.ram_bytes), working_set_bytes, before.ram_bytes),
        anonymous_bytes: anonymous_bytes.map(|now| settled(now, before.anonymous_bytes)),
        limit_bytes: limit_bytes.map(bounded),
        load_seconds: Some(Pair {
            planned: Some(bounded(load_seconds(target.facts.bytes))),
            measured: timings.and_then(|timings| timings.load_seconds),
        }),
        milli_tokens_per_second: pair(
            plan.milli_tokens_per_second,
            milli_tokens_per_second,
            before.milli_tokens_per_second,
        ),
        major_faults_per_token: major_faults_per_token
            .map(|now| settled(now, before.major_faults_per_token)),
    })
}

/// Condition `MemoryFits`.
pub(super) fn memory_fits(inputs: Inputs<'_>) -> Word {
    let Some((active, usage)) = answering(inputs.snapshot) else {
        return word(
            "Unknown",
            "NotMeasured",
            "no server answers that has measured its memory",
        );
    };
    let quant = &active.quant;
    if usage.thrashing {
        return word(
            "False",
            "Thrashing",
            &format!(
                "{quant} reads weights from the disk again and again, 100 times per token or more: raise spec.memory, \
                 or choose a smaller quant"
            ),
        );
    }
    let Some(limit) = usage.limit_bytes else {
        return word(
            "Unknown",
            "NotMeasured",
            "the server cannot read its cgroup",
        );
    };
    if usage
        .anonymous_bytes
        .is_some_and(|anonymous| anonymous > limit / 10 * 9)
    {
        return word(
            "False",
            "NearLimit",
            &format!(
                "{quant} uses nine tenths of its limit of {} without any weights: raise spec.memory, or lower \
                 serving.contextLength",
                format_bytes(limit)
            ),
        );
    }
    // No figure that moves: it stands in status.measured, and a message that changes is a write.
    let message = format!("{quant} works within {}", format_bytes(limit));
    word("True", "Fits", &message)
}

/// What to do about a file that is not what the server loaded, where a pod says so: it was verified before, but what
/// answers now is not what was verified, or will not be after the next start.
pub(super) fn weights_changed(snapshot: &Snapshot) -> Option<String> {
    let active = snapshot.active()?;
    let pods = active.pods.iter().filter(|pod| !pod.terminating);
    let mut files = pods.filter_map(|pod| pod.usage.as_ref()?.weights_changed.as_ref());
    let file = files.next()?;
    Some(format!(
        "{file} of {} was written to, replaced or taken away under the running server: annotate the KimiModel with a \
         new value of {} to verify and mend the files, and then with one of {} to load them",
        active.quant,
        names::ANNOTATION_REFETCH,
        names::ANNOTATION_RESTART
    ))
}

fn pair(planned: Option<u64>, now: Option<u64>, before: Option<Pair>) -> Option<Pair> {
    let before = before.and_then(|pair| pair.measured);
    Some(Pair {
        planned: planned.map(bounded),
        measured: now.map(|now| settled(now, before)),
    })
}

fn settled(now: u64, before: Option<i64>) -> i64 {
    let now = bounded(now);
    before
        .filter(|before| now.abs_diff(*before) <= before.unsigned_abs() / NEWS.unsigned_abs())
        .unwrap_or(now)
}

fn bounded(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_moves_are_no_news() {
        assert_eq!(settled(1_040, Some(1_000)), 1_000);
        assert_eq!(settled(1_060, Some(1_000)), 1_060);
        assert_eq!(settled(950, Some(1_000)), 1_000);
        assert_eq!(settled(0, Some(1_000)), 0);
        assert_eq!(settled(3, Some(0)), 3);
        assert_eq!(settled(7, None), 7);
        assert_eq!(settled(u64::MAX, Some(-5)), i64::MAX);
    }
}
