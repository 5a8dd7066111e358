//! Rows of the table about targets that are given up: why, when, what is written down, and what stands afterwards.

use super::*;
use crate::crd::{HistoryEntry, Outcome};
use crate::snapshot::GivenUp;

#[test]
fn a_target_that_cannot_serve_is_given_up() {
    let given_up = |change: &dyn Fn(&mut Snapshot), reason: &str| {
        let decision = check(switching(false), |s| change(s), "GiveUp", "RolledBack");
        let Step::GiveUp { record, entry } = decision.step else {
            panic!("{decision:?}")
        };
        assert_eq!(
            (record.reason.as_str(), entry.reason.as_str()),
            (reason, reason)
        );
        assert_eq!(
            (entry.outcome, entry.from.as_deref(), entry.to.as_str()),
            (Outcome::RolledBack, Some("Q5_0"), "Q4_K_M")
        );
        (record, entry)
    };
    let ended = |times: u32, permanent: bool| {
        move |s: &mut Snapshot| {
            let pod = &mut s.workloads[0].pods[0];
            pod.failure = failure("SelfTestFailed");
            (pod.restarts, pod.permanent) = (times, permanent);
        }
    };
    check(
        switching(false),
        ended(2, false),
        "WaitReady",
        "SelfTestFailed",
    );
    given_up(&ended(3, false), "SelfTestFailed");
    given_up(&ended(0, true), "SelfTestFailed");
    given_up(&|s| s.workloads[0].pods[0].restarts = 3, "StartFailed");

    let placed = |ago: i64| {
        move |s: &mut Snapshot| {
            s.workloads[0].pods[0].scheduled = Some(at(s, SignedDuration::from_secs(ago)));
        }
    };
    let decision = check(switching(false), placed(1199), "WaitReady", "Loading");
    assert_eq!(decision.requeue.map(|wait| wait.as_secs()), Some(2));
    given_up(&placed(1200), "ProgressDeadlineExceeded");
    let slow = |s: &mut Snapshot| {
        placed(1200)(s);
        s.spec.rollout.progress_deadline_seconds = Some(3600);
    };
    check(switching(false), slow, "WaitReady", "Loading");

    // The old weights are on a volume of the user's, which the spec names no more.
    let elsewhere = |s: &mut Snapshot| {
        ended(3, false)(s);
        s.claims.truncate(1);
        s.workloads[1].on_given_volume = true;
    };
    given_up(&elsewhere, "SelfTestFailed");

    // Nothing to go back to: it is tried on.
    for without in [
        (|s: &mut Snapshot| s.claims.truncate(1)) as fn(&mut Snapshot),
        |s| s.claims[1].deleting = true,
        |s| s.service.as_mut().unwrap().selected = None,
    ] {
        let change = |s: &mut Snapshot| {
            ended(9, true)(s);
            without(s);
        };
        let decision = check(switching(false), change, "WaitReady", "SelfTestFailed");
        assert!(decision.stalled);
    }
}

#[test]
fn an_outage_ends_in_a_rollback() {
    let stopped = |ago: i64| {
        move |s: &mut Snapshot| {
            s.workloads[1].replicas = 0;
            s.workloads[1].stopped_at = Some(at(s, SignedDuration::from_secs(ago + 60)));
            s.workloads[1].dark_at = Some(at(s, SignedDuration::from_secs(ago)));
            s.workloads[1].pods.clear();
            s.spec.rollout.max_outage_seconds = Some(300);
        }
    };
    let decision = check(switching(false), stopped(290), "WaitReady", "Loading");
    assert_eq!(decision.requeue.map(|wait| wait.as_secs()), Some(11));
    let decision = check(switching(false), stopped(300), "GiveUp", "RolledBack");
    let Step::GiveUp { record, entry } = decision.step else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (record.reason.as_str(), entry.outage_seconds),
        ("OutageTooLong", 300)
    );
    assert!(record.dark_since.is_some());

    // Expected from how long the old weights took.
    let loaded_in = |seconds: i64, max: u32| {
        move |s: &mut Snapshot| {
            blocked(s, BlockedCause::Unschedulable, MINUTE);
            let pod = &mut s.workloads[1].pods[0];
            pod.started = Some(testing::epoch());
            pod.ready_since = testing::epoch()
                .checked_add(SignedDuration::from_secs(seconds))
                .ok();
            s.spec.rollout.max_outage_seconds = Some(max);
        }
    };
    check(
        switching(false),
        loaded_in(300, 300),
        "StopOld",
        "MakingRoom",
    );
    check(
        switching(false),
        loaded_in(301, 300),
        "GiveUp",
        "RolledBack",
    );
    check(switching(false), loaded_in(1, 0), "GiveUp", "RolledBack");

    // Somebody else took the room that the old server left.
    let gone = |emptied: Option<i64>| {
        move |s: &mut Snapshot| {
            stopped(90)(s);
            blocked(s, BlockedCause::Unschedulable, MINUTE);
            s.workloads[1].emptied_at = emptied.map(|ago| at(s, SignedDuration::from_secs(ago)));
        }
    };
    check(switching(false), gone(None), "WaitReady", "MakingRoom");
    check(switching(false), gone(Some(59)), "WaitReady", "MakingRoom");
    check(switching(false), gone(Some(60)), "GiveUp", "RolledBack");
}

#[test]
fn a_rollback_stands_until_the_spec_changes() {
    let rolled_back = |generation: i64, dark: bool| {
        let (mut snapshot, target) = switching(false);
        let now = snapshot.now;
        snapshot.workloads.remove(0);
        let entry = HistoryEntry {
            time: now,
            from: Some("Q5_0".to_owned()),
            to: "Q4_K_M".to_owned(),
            outcome: Outcome::RolledBack,
            reason: "LoadFailed".to_owned(),
            bytes_fetched: 0,
            outage_seconds: 10,
        };
        let service = snapshot.service.as_mut().unwrap();
        service.history = vec![entry];
        service.given_up = Some(GivenUp {
            at: now,
            generation,
            artifact: target.artifact.clone(),
            workload: target.workload.clone(),
            inputs: target.inputs.clone(),
            quant: "Q4_K_M".to_owned(),
            reason: "LoadFailed".to_owned(),
            message: "words".to_owned(),
            dark_since: dark.then_some(now),
        });
        (snapshot, target)
    };
    let decision = check(rolled_back(1, false), |_| (), "RolledBack", "RolledBack");
    assert!(
        decision.stalled && decision.message.contains("words"),
        "{}",
        decision.message
    );
    check(rolled_back(0, false), |_| (), "Start", "Starting");
    check(
        rolled_back(1, false),
        |s| s.claims[1].deleting = true,
        "Start",
        "Starting",
    );
    check(
        rolled_back(1, false),
        |s| s.spec.suspend = true,
        "Suspended",
        "Suspended",
    );
    check(rolled_back(1, true), |_| (), "RolledBack", "RolledBack");
    let answers = |s: &mut Snapshot| {
        s.workloads[0].pods[0].ready_since = s.now.checked_add(MINUTE).ok();
    };
    let decision = check(rolled_back(1, true), answers, "GiveUp", "RolledBack");
    let Step::GiveUp { record, entry } = decision.step else {
        panic!("{decision:?}")
    };
    assert_eq!((record.dark_since, entry.outage_seconds), (None, 60));
}

#[test]
fn a_quota_is_room_too() {
    let refused = |words: &str, ago: SignedDuration| {
        let message = words.to_owned();
        move |s: &mut Snapshot| {
            s.workloads[0].pods.clear();
            let since = at(s, ago);
            let cause = BlockedCause::Refused;
            s.workloads[0].refused = Some(Blocked {
                cause,
                since,
                message,
            });
        }
    };
    let quota = "pods \"x\" is forbidden: exceeded quota: small";
    check(
        switching(false),
        refused(quota, SignedDuration::ZERO),
        "WaitReady",
        "Unschedulable",
    );
    check(
        switching(false),
        refused(quota, MINUTE),
        "StopOld",
        "MakingRoom",
    );
    check(
        switching(false),
        refused("violates PodSecurity", MINUTE),
        "WaitReady",
        "PodBlocked",
    );
    check(
        switching(false),
        refused("violates PodSecurity", MINUTE * 20),
        "GiveUp",
        "RolledBack",
    );
}

#[test]
fn a_gpu_that_the_old_server_holds_is_not_waited_for() {
    let named = |gpu: bool| {
        move |s: &mut Snapshot| {
            blocked(s, BlockedCause::Unschedulable, SignedDuration::ZERO);
            let pod = s.workloads[0].pods[0].blocked.as_mut().unwrap();
            pod.message = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.".to_owned();
            s.workloads[1].gpu = gpu;
        }
    };
    check(switching(false), named(true), "StopOld", "MakingRoom");
    check(switching(false), named(false), "WaitReady", "Unschedulable");
    let for_long = |s: &mut Snapshot| {
        named(false)(s);
        let since = at(s, MINUTE * 5);
        s.workloads[0].pods[0].blocked.as_mut().unwrap().since = since;
    };
    let decision = check(switching(false), for_long, "WaitReady", "Unschedulable");
    assert!(decision.stalled, "somebody else holds the GPU");
}

#[test]
fn several_replicas() {
    let replicas = |ready: usize, waits: bool| {
        move |s: &mut Snapshot| {
            s.spec.serving.replicas = 2;
            s.spec.storage.access_mode = spec::AccessMode::ReadWriteMany;
            s.claims
                .iter_mut()
                .for_each(|claim| claim.access_modes = vec!["ReadWriteMany".to_owned()]);
            s.workloads[0].id = testing::assessed(s).target.unwrap().workload;
            s.workloads[0].pods = (0..2).map(|index| pod(index < ready)).collect();
            if waits {
                let since = s.now;
                let cause = BlockedCause::Unschedulable;
                let message = "no room".to_owned();
                s.workloads[0].pods[1].blocked = Some(Blocked {
                    cause,
                    since,
                    message,
                });
            }
        }
    };
    check(switching(false), replicas(1, false), "WaitReady", "Loading");
    check(switching(false), replicas(2, false), "Flip", "Switching");
    check(switching(false), replicas(1, true), "Flip", "Switching");
    let one_node = |s: &mut Snapshot| {
        replicas(2, false)(s);
        s.claims[0].access_modes = vec!["ReadWriteOnce".to_owned()];
    };
    check(switching(false), one_node, "Refused", "StorageUnchangeable");
    let read_only = |s: &mut Snapshot| {
        replicas(2, false)(s);
        s.claims[0].access_modes = vec!["ReadOnlyMany".to_owned()];
    };
    check(switching(false), read_only, "Flip", "Switching");
}

#[test]
fn no_room_for_both_sets_of_weights() {
    let beside = || {
        let (mut snapshot, target) = switching(false);
        snapshot.workloads.remove(0);
        snapshot.claims[0].verified = None;
        let kind = JobKind::Fetch {
            artifact: target.artifact.clone(),
        };
        snapshot
            .jobs
            .push(job(kind, &target.fetch_inputs, JobPhase::Active));
        (snapshot, target)
    };
    let full = |s: &mut Snapshot| s.jobs[0].failure = failure("DiskFull");
    let decision = check(beside(), full, "WaitFetch", "InsufficientStorage");
    assert!(
        decision.stalled && decision.message.contains("statvfs"),
        "{}",
        decision.message
    );
    let says = |words: &str| {
        let words = words.to_owned();
        move |s: &mut Snapshot| s.claims[0].refused = Some(words)
    };
    let decision = check(
        beside(),
        says("rpc error: code = ResourceExhausted desc = pool is full"),
        "WaitFetch",
        "InsufficientStorage",
    );
    assert!(
        decision.message.contains("pool is full"),
        "{}",
        decision.message
    );
    check(
        beside(),
        says("secret not found"),
        "WaitFetch",
        "ProvisioningFailed",
    );
    check(
        beside(),
        |s| s.workloads.clear(),
        "WaitFetch",
        "Downloading",
    );

    let replace = |s: &mut Snapshot| s.spec.rollout.strategy = spec::Strategy::Replace;
    check(beside(), replace, "Free", "FreeingStorage");
    let freed = |s: &mut Snapshot| {
        replace(s);
        s.claims.remove(1);
    };
    check(beside(), freed, "WaitFetch", "Downloading");
    check(switching(true), replace, "Flip", "Switching");
}
