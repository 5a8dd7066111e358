//! The figures of a status: the artifact and how much of it is there, how long phases took, and the progress column. It
//! must know no condition.

use jiff::Timestamp;
use spec::{AUTO_QUANT, format_bytes};

use super::super::plan::Step;
use super::super::progress::{Progress, State};
use super::{Inputs, is_verified, target_quant};
use crate::crd::{ArtifactStatus, Timings};
use crate::snapshot::JobPhase;

/// The target's artifact; without a target (a refused edit, say) the one that serves.
pub(super) fn artifact(inputs: Inputs<'_>) -> Option<ArtifactStatus> {
    let Inputs {
        snapshot,
        assessment,
        previous,
        ..
    } = inputs;
    let serving = || {
        let active = snapshot.active()?;
        let facts = snapshot.claim(&active.artifact)?.facts.as_ref()?;
        Some((active.artifact.as_str(), facts))
    };
    let target = assessment
        .target
        .as_ref()
        .map(|target| (target.artifact.as_str(), &target.facts));
    let (id, facts) = target.or_else(serving)?;
    let verified = is_verified(snapshot, id, facts);
    let bytes = bounded(facts.bytes);
    let before = previous
        .and_then(|previous| previous.artifact.as_ref())
        .filter(|before| before.id == id);
    let progress = snapshot
        .fetch_job(id)
        .and_then(|job| job.progress.as_ref())
        .filter(|_| !verified);
    let fetching = progress.filter(|progress| progress.state == State::Downloading);
    let claim = snapshot.claim(id);
    // Without a claim nothing is on a volume, whatever was reported before.
    let counted = |now: Option<i64>, before: Option<i64>| {
        if claim.is_some() {
            now.or(before)
        } else {
            None
        }
    };
    Some(ArtifactStatus {
        id: id.to_owned(),
        repo: facts.repo.clone(),
        commit: facts.commit.clone(),
        quant: facts.quant.clone(),
        shards: i64::from(facts.shards),
        bytes,
        downloaded_bytes: counted(
            if verified {
                Some(bytes)
            } else {
                progress.map(|p| bounded(p.downloaded).min(bytes))
            },
            before.and_then(|before| before.downloaded_bytes),
        ),
        shards_done: counted(
            if verified {
                Some(i64::from(facts.shards))
            } else {
                progress.map(|p| i64::from(p.shards_done))
            },
            before.and_then(|before| before.shards_done),
        ),
        bytes_per_second: fetching.map(|p| bounded(p.bytes_per_second)),
        eta_seconds: fetching.and_then(|p| p.eta_seconds).map(bounded),
        claim_name: claim.map(|claim| claim.name.clone()),
        verified,
    })
}

/// Phase times of the target. Jobs and pods that are gone leave what was noted before, for the same artifact.
pub(super) fn timings(inputs: Inputs<'_>, artifact: Option<&ArtifactStatus>) -> Option<Timings> {
    let Inputs {
        snapshot,
        assessment,
        previous,
        ..
    } = inputs;
    let model = assessment.model.as_ref().ok();
    let target = assessment.target.as_ref();
    let same = previous
        .and_then(|previous| previous.artifact.as_ref())
        .map(|before| &before.id)
        == artifact.map(|artifact| &artifact.id);
    let before = previous
        .filter(|_| same)
        .and_then(|previous| previous.timings.clone())
        .unwrap_or_default();
    let took = |created: Timestamp, phase: JobPhase| match phase {
        JobPhase::Succeeded { at } => Some(seconds(created, at)),
        JobPhase::Active | JobPhase::Failed { .. } => None,
    };
    let inspect = model.and_then(|model| snapshot.inspect_job(&model.source.id));
    let fetch = target.and_then(|target| snapshot.fetch_job(&target.artifact));
    let pod = target
        .and_then(|target| snapshot.workload(&target.workload))
        .and_then(|workload| {
            workload
                .pods
                .iter()
                .find(|pod| pod.ready && !pod.terminating)
        });
    let timings = Timings {
        inspect_seconds: inspect
            .and_then(|job| took(job.created, job.phase))
            .or(before.inspect_seconds),
        fetch_seconds: fetch
            .and_then(|job| took(job.created, job.phase))
            .or(before.fetch_seconds),
        load_seconds: pod
            .and_then(|pod| Some(seconds(pod.started?, pod.ready_since?)))
            .or(before.load_seconds),
    };
    (timings != Timings::default()).then_some(timings)
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.duration_since(from).as_secs().max(0)
}

fn bounded(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The printer column: the step in a few words, with a share and an ETA while bytes are counted.
pub(super) fn progress(inputs: Inputs<'_>, artifact: Option<&ArtifactStatus>) -> String {
    let quant = target_quant(inputs).unwrap_or_else(|| AUTO_QUANT.to_owned());
    format!("{quant}: {}", step(inputs, artifact))
}

fn step(inputs: Inputs<'_>, artifact: Option<&ArtifactStatus>) -> String {
    let Inputs {
        snapshot,
        assessment,
        decision,
        ..
    } = inputs;
    if decision.stalled && decision.step != Step::Refused {
        return format!("stalled ({})", decision.reason.as_str());
    }
    let words = match (&decision.step, &assessment.target) {
        (Step::Fetch | Step::WaitFetch | Step::RetryJob { .. }, Some(target)) => {
            let job = snapshot.fetch_job(&target.artifact);
            let done =
                artifact.and_then(|artifact| Some((artifact.downloaded_bytes?, artifact.bytes)));
            return match (job.and_then(|job| job.progress.as_ref()), done) {
                (Some(progress), _) => share(progress),
                // Between two pods, or a pod that does not answer just now.
                (None, Some((done, bytes))) => share_of(positive(done), positive(bytes)),
                (None, None) => "fetch pending".to_owned(),
            };
        }
        (Step::Deleting, _) => "deleting",
        (Step::Refused, _) => "refused",
        (Step::Suspended, _) => "suspended",
        (
            Step::Inspect
            | Step::WaitInspect
            | Step::RetryJob { .. }
            | Step::Fetch
            | Step::WaitFetch,
            _,
        ) => "inspecting",
        (Step::Adopt { .. }, _) => "taking over a retained volume",
        (Step::Free, _) => "freeing storage",
        (Step::MarkVerified, _) => "verified",
        (Step::Start | Step::WaitReady, _) => "loading",
        (Step::StopOld, _) => "making room",
        (Step::GiveUp { .. } | Step::RolledBack, _) => "rolled back",
        (Step::Flip { .. } | Step::SettleEndpoints, _) => "switching",
        (Step::DrainOld, _) => "draining the old server",
        (Step::Prune { .. }, _) => "removing old weights",
        (Step::Abandon { .. }, _) => "giving up lost weights",
        (Step::Serving, _) => "serving",
    };
    words.to_owned()
}

pub(super) fn share(progress: &Progress) -> String {
    let share = share_of(progress.downloaded, progress.bytes);
    match progress.state {
        State::Listing => "listing".to_owned(),
        State::Downloading => {
            let eta = progress
                .eta_seconds
                .map_or_else(String::new, |eta| format!(", {} left", duration(eta)));
            format!(
                "{share}, {}/s{eta}",
                format_bytes(progress.bytes_per_second)
            )
        }
        State::Verifying => format!(
            "verifying, {}/{} shards",
            progress.shards_done, progress.shards
        ),
        State::Done => "downloaded".to_owned(),
        State::Failed => "failed".to_owned(),
    }
}

/// Rounded down, so that 100 % means all.
fn share_of(done: u64, all: u64) -> String {
    let percent = (u128::from(done) * 100)
        .checked_div(u128::from(all))
        .unwrap_or(0);
    format!("{percent}% of {}", format_bytes(all))
}

/// `45s`, `12m`, `3h05m`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds.div_ceil(60)),
        _ => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

fn positive(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
