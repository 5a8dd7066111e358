//! One table: for each observed state, the step and its reason. Each row differs from a serving model (or an empty
//! cluster) by what stands in it, and rows with two troubles pin which check comes first.

mod rollback;

use jiff::SignedDuration;
use sizing::facts::Failure;

use super::{Decision, Step, history, plan};
use crate::controller::assess::Target;
use crate::crd::HistoryEntry;
use crate::names;
use crate::snapshot::{
    Blocked, BlockedCause, Claim, JobKind, JobPhase, JobState, Selected, ServiceState, Snapshot,
};
use crate::testing::{self, MINIMAL, pod, workload};

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

fn job(kind: JobKind, inputs: &str, phase: JobPhase) -> JobState {
    JobState {
        name: "job".to_owned(),
        uid: "uid-job".to_owned(),
        kind,
        inputs: inputs.to_owned(),
        phase,
        ours: true,
        suspended: false,
        deleting: false,
        created: testing::epoch(),
        failure: None,
        facts: None,
        blocked: None,
        progress: None,
    }
}

fn claim(quant: &str, source: &str) -> Claim {
    Claim {
        source: source.to_owned(),
        ..testing::claim(testing::facts(quant))
    }
}

/// A model whose weights are verified and whose target is known but not started.
fn verified(spec: &str) -> (Snapshot, Target) {
    let mut snapshot = testing::snapshot(spec);
    let source = testing::assessed(&snapshot).model.unwrap().source.id;
    snapshot.claims.push(claim("Q4_K_M", &source));
    let target = testing::assessed(&snapshot).target.unwrap();
    (snapshot, target)
}

/// A model that serves.
fn serving() -> (Snapshot, Target) {
    let (mut snapshot, target) = verified(MINIMAL);
    snapshot
        .workloads
        .push(workload(&target.workload, "Q4_K_M", true));
    snapshot.service = Some(ServiceState {
        selected: Some(target.workload.clone()),
        foreign_endpoints: 0,
        leads_to: None,
        last_switch: None,
        history: Vec::new(),
        given_up: None,
    });
    (snapshot, target)
}

/// An old workload serves and the target has been started.
fn switching(target_ready: bool) -> (Snapshot, Target) {
    let (mut snapshot, target) = serving();
    snapshot.workloads[0].pods[0].ready = target_ready;
    snapshot.workloads.push(workload("0ld", "Q5_0", true));
    snapshot.claims.push(claim("Q5_0", "earlier"));
    snapshot.service.as_mut().unwrap().selected = Some("0ld".to_owned());
    (snapshot, target)
}

fn blocked(snapshot: &mut Snapshot, cause: BlockedCause, ago: SignedDuration) {
    let since = snapshot.now.checked_sub(ago).unwrap();
    let message = "0/1 nodes are available".to_owned();
    snapshot.workloads[0].pods[0].blocked = Some(Blocked {
        cause,
        since,
        message,
    });
}

/// With a fetch Job and an unverified claim.
fn fetching(phase: JobPhase) -> (Snapshot, Target) {
    let (mut snapshot, target) = verified(MINIMAL);
    snapshot.claims[0].verified = None;
    let kind = JobKind::Fetch {
        artifact: target.artifact.clone(),
    };
    snapshot.jobs.push(job(kind, &target.fetch_inputs, phase));
    (snapshot, target)
}

fn inspecting(phase: JobPhase) -> Snapshot {
    let mut snapshot = testing::snapshot(MINIMAL);
    let assessment = testing::assessed(&snapshot);
    let kind = JobKind::Inspect {
        source: assessment.model.unwrap().source.id,
    };
    snapshot
        .jobs
        .push(job(kind, &assessment.inspect_inputs, phase));
    snapshot
}

fn failure(reason: &str) -> Option<Failure> {
    Some(Failure {
        reason: reason.to_owned(),
        message: "words".to_owned(),
    })
}

fn decide(snapshot: &Snapshot) -> Decision {
    plan(&testing::assessed(snapshot), snapshot)
}

/// `change` is applied to a base, then the decision must be `step` for `reason`.
#[track_caller]
fn check<T>(
    base: (Snapshot, T),
    change: impl FnOnce(&mut Snapshot),
    step: &str,
    reason: &str,
) -> Decision {
    let mut snapshot = base.0;
    change(&mut snapshot);
    let decision = decide(&snapshot);
    let name = format!("{:?}", decision.step);
    let name = name.split([' ', '{']).next().unwrap();
    assert_eq!(
        (name, decision.reason.as_str()),
        (step, reason),
        "{}",
        decision.message
    );
    decision
}

fn empty(spec: &str) -> (Snapshot, ()) {
    (testing::snapshot(spec), ())
}

fn at(snapshot: &Snapshot, ago: SignedDuration) -> jiff::Timestamp {
    snapshot.now.checked_sub(ago).unwrap()
}

#[test]
fn spec_and_suspension_come_first() {
    check(
        serving(),
        |s| s.model.deleting = true,
        "Deleting",
        "Deleting",
    );
    check(
        serving(),
        |s| s.spec.quant = Some("a..b".to_owned()),
        "Refused",
        "InvalidSpec",
    );
    let unknown = |s: &mut Snapshot| {
        s.spec.model = Some("Kimi-K9".to_owned());
        s.spec.suspend = true;
    };
    let decision = check(serving(), unknown, "Refused", "UnknownModel");
    assert!(
        decision.message.contains("Kimi-K2-Instruct"),
        "{}",
        decision.message
    );
    check(
        serving(),
        |s| s.spec.suspend = true,
        "Suspended",
        "Suspended",
    );
    check(
        fetching(JobPhase::Active),
        |s| s.spec.suspend = true,
        "Suspended",
        "Suspended",
    );
}

#[test]
fn inspection() {
    check(empty(MINIMAL), |_| (), "Inspect", "Inspecting");
    let refused =
        "{model: Kimi-K2-Instruct, quant: UD-Q4_K_XL, hardware: T4, serving: {cpuFallback: Allow}}";
    check(empty(refused), |_| (), "Refused", "DoesNotFit");
    let base = || (inspecting(JobPhase::Active), ());
    check(base(), |_| (), "WaitInspect", "Inspecting");
    check(
        base(),
        |s| s.jobs[0].failure = failure("HubUnreachable"),
        "WaitInspect",
        "HubUnreachable",
    );
    check(
        base(),
        |s| s.jobs[0].inputs.clear(),
        "WaitInspect",
        "Inspecting",
    );
    let edited = |s: &mut Snapshot| {
        s.jobs[0].inputs.clear();
        s.jobs[0].failure = failure("SecretMissing");
    };
    check(base(), edited, "RetryJob", "InspectFailed");
    check(
        base(),
        |s| s.jobs[0].deleting = true,
        "WaitInspect",
        "InspectFailed",
    );
    let now = testing::epoch();
    let failed = |permanent, ago: SignedDuration| {
        (
            inspecting(JobPhase::Failed {
                at: now.checked_sub(ago).unwrap(),
                permanent,
            }),
            (),
        )
    };
    let gated = |s: &mut Snapshot| s.jobs[0].failure = failure("Gated");
    let decision = check(failed(true, MINUTE), gated, "WaitInspect", "Gated");
    assert!(
        decision.stalled
            && decision
                .requeue
                .is_some_and(|wait| wait.as_secs() == 9 * 60 + 1)
    );
    check(
        failed(true, MINUTE * 10),
        gated,
        "RetryJob",
        "InspectFailed",
    );
    check(failed(false, MINUTE), gated, "RetryJob", "InspectFailed");
    check(
        failed(true, MINUTE),
        |s| s.jobs[0].inputs.clear(),
        "RetryJob",
        "InspectFailed",
    );
    let unreadable = |ago: SignedDuration| {
        (
            inspecting(JobPhase::Succeeded {
                at: now.checked_sub(ago).unwrap(),
            }),
            (),
        )
    };
    check(
        unreadable(SignedDuration::ZERO),
        |_| (),
        "WaitInspect",
        "Inspecting",
    );
    check(unreadable(MINUTE), |_| (), "RetryJob", "InspectFailed");
    let facts = |s: &mut Snapshot| s.jobs[0].facts = Some(testing::facts("Q4_K_M"));
    check(
        unreadable(SignedDuration::ZERO),
        facts,
        "Fetch",
        "Downloading",
    );
}

#[test]
fn refusals_before_anything_is_made() {
    let gpu = "{quant: Q4_K_M, hardware: T4, source: {huggingFace: {repo: lab/Kimi-Tiny-GGUF}}, serving: {cpuFallback: X}}";
    let spec = |fallback: &str| gpu.replace('X', fallback);
    let unverified = |spec: &str| {
        let (mut snapshot, target) = verified(spec);
        snapshot.claims[0].verified = None;
        (snapshot, target)
    };
    let decision = check(verified(&spec("Deny")), |_| (), "Refused", "NoMatchingNode");
    assert!(
        decision
            .message
            .contains("labels seen: none; set serving.cpuFallback"),
        "{}",
        decision.message
    );
    let other =
        |s: &mut Snapshot| s.nodes = vec![testing::node("g1", 64 << 30, Some("NVIDIA-A10"))];
    let decision = check(verified(&spec("Deny")), other, "Refused", "NoMatchingNode");
    assert!(
        decision.message.contains("labels seen: NVIDIA-A10;"),
        "{}",
        decision.message
    );
    check(unverified(&spec("Allow")), |_| (), "Fetch", "Downloading");
    let t4 = |memory| {
        move |s: &mut Snapshot| s.nodes = vec![testing::node("g1", memory, Some("Tesla-T4"))]
    };
    check(
        verified(&spec("Deny")),
        t4(64 << 30),
        "Refused",
        "AccelerationUnavailable",
    );
    check(
        unverified(&spec("Allow")),
        t4(64 << 30),
        "Fetch",
        "Downloading",
    );
    check(
        unverified(&spec("Allow")),
        t4(1 << 20),
        "Refused",
        "DoesNotFit",
    );
    check(
        unverified(MINIMAL),
        |s| s.nodes[0].usable = false,
        "Refused",
        "NoMatchingNode",
    );
    check(
        unverified(MINIMAL),
        |s| s.spec.serving.context_length = Some(8192),
        "Refused",
        "ContextTooLong",
    );
    // What runs already is not refused because a Node left or shrank.
    check(serving(), |s| s.nodes.clear(), "Serving", "Serving");
    check(
        serving(),
        |s| s.nodes[0].memory = 1 << 20,
        "Serving",
        "Serving",
    );
}

#[test]
fn fetching_order() {
    let now = testing::epoch();
    let done = || fetching(JobPhase::Succeeded { at: now });
    check(
        fetching(JobPhase::Active),
        |_| (),
        "WaitFetch",
        "Downloading",
    );
    check(
        fetching(JobPhase::Active),
        |s| s.jobs.clear(),
        "Fetch",
        "Downloading",
    );
    check(
        fetching(JobPhase::Active),
        |s| s.claims[0].deleting = true,
        "Inspect",
        "Inspecting",
    );
    check(done(), |_| (), "MarkVerified", "Verified");
    check(
        done(),
        |s| s.claims[0].created = now.checked_add(MINUTE).unwrap(),
        "RetryJob",
        "Downloading",
    );
    let full = |s: &mut Snapshot| s.jobs[0].failure = failure("DiskFull");
    check(fetching(JobPhase::Active), full, "WaitFetch", "DiskFull");
    check(
        fetching(JobPhase::Failed {
            at: now,
            permanent: false,
        }),
        full,
        "WaitFetch",
        "DiskFull",
    );
    let waited = now.checked_sub(MINUTE).unwrap();
    check(
        fetching(JobPhase::Failed {
            at: waited,
            permanent: false,
        }),
        full,
        "RetryJob",
        "FetchFailed",
    );
    let lost = |ago: SignedDuration| {
        move |s: &mut Snapshot| {
            let since = at(s, ago);
            let cause = BlockedCause::Unschedulable;
            s.jobs[0].blocked = Some(Blocked {
                cause,
                since,
                message: "no node".to_owned(),
            });
        }
    };
    check(
        fetching(JobPhase::Active),
        lost(MINUTE),
        "WaitFetch",
        "Unschedulable",
    );
    check(
        fetching(JobPhase::Active),
        lost(MINUTE * 5),
        "RetryJob",
        "FetchFailed",
    );
    check(
        verified(MINIMAL),
        |s| s.claims[0].verified = Some("other".to_owned()),
        "Fetch",
        "Downloading",
    );
}

#[test]
fn starting_and_room() {
    check(verified(MINIMAL), |_| (), "Start", "Starting");
    check(switching(false), |_| (), "WaitReady", "Loading");
    let short = SignedDuration::from_secs(59);
    check(
        switching(false),
        |s| blocked(s, BlockedCause::Container, MINUTE),
        "WaitReady",
        "PodBlocked",
    );
    let decision = check(
        switching(false),
        |s| blocked(s, BlockedCause::Unschedulable, short),
        "WaitReady",
        "Unschedulable",
    );
    assert_eq!(decision.requeue.map(|wait| wait.as_secs()), Some(2));
    check(
        switching(false),
        |s| blocked(s, BlockedCause::Unschedulable, MINUTE),
        "StopOld",
        "MakingRoom",
    );
    let stopped = |s: &mut Snapshot| {
        blocked(s, BlockedCause::Unschedulable, MINUTE);
        s.workloads[1].replicas = 0;
    };
    check(switching(false), stopped, "WaitReady", "MakingRoom");
    // The old server's Node would not take the target: an outage would buy nothing.
    let elsewhere = |s: &mut Snapshot| {
        blocked(s, BlockedCause::Unschedulable, MINUTE);
        s.workloads[1].pods[0].node = Some("n2".to_owned());
    };
    let decision = check(switching(false), elsewhere, "WaitReady", "Unschedulable");
    assert!(decision.stalled);
    let alone = |s: &mut Snapshot| blocked(s, BlockedCause::Unschedulable, MINUTE);
    check(
        serving(),
        |s| {
            s.workloads[0].pods[0].ready = false;
            alone(s)
        },
        "WaitReady",
        "Unschedulable",
    );
    check(
        switching(false),
        |s| s.workloads[0].pods[0].failure = failure("SelfTestFailed"),
        "WaitReady",
        "SelfTestFailed",
    );
    let decision = check(
        switching(false),
        |s| s.workloads[0].pods[0].restarts = 1,
        "WaitReady",
        "StartFailed",
    );
    assert!(decision.stalled);
    // It ended, and loads again: said, but not stuck. A container beside it that ran all along proves nothing.
    for (reason, reported) in [
        ("OutOfMemory", failure("OutOfMemory")),
        ("StartFailed", None),
    ] {
        for (started, stalled) in [
            (Some(MINUTE), false),
            (Some(MINUTE * 3), true),
            (None, true),
        ] {
            let again = |s: &mut Snapshot| {
                let started = started.map(|ago| at(s, ago));
                let ended = Some(at(s, MINUTE * 2));
                let pod = &mut s.workloads[0].pods[0];
                (pod.failure, pod.restarts) = (reported.clone(), 1);
                (pod.started, pod.ended) = (started, ended);
            };
            let decision = check(switching(false), again, "WaitReady", reason);
            assert_eq!(decision.stalled, stalled, "{reason} {started:?}");
        }
    }
    check(
        switching(false),
        |s| s.workloads[0].deleting = true,
        "WaitReady",
        "Starting",
    );
}

#[test]
fn the_endpoint() {
    let decision = check(switching(true), |_| (), "Flip", "Switching");
    let Step::Flip { entry } = decision.step else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (
            entry.from.as_deref(),
            entry.to.as_str(),
            entry.reason.as_str(),
            entry.outage_seconds
        ),
        (Some("Q5_0"), "Q4_K_M", "QuantEdited", 0)
    );
    let stopped = |s: &mut Snapshot| {
        s.workloads[1].replicas = 0;
        s.workloads[1].stopped_at = Some(at(s, SignedDuration::from_secs(42)));
    };
    let decision = check(switching(true), stopped, "Flip", "Switching");
    assert!(matches!(decision.step, Step::Flip { entry } if entry.outage_seconds == 0));
    // What was stopped answers until its pods end.
    let ended = |s: &mut Snapshot| {
        stopped(s);
        s.workloads[1].pods[0].ready = false;
    };
    let decision = check(switching(true), ended, "Flip", "Switching");
    assert!(matches!(decision.step, Step::Flip { entry } if entry.outage_seconds == 42));
    let seen_to_end = |s: &mut Snapshot| {
        ended(s);
        s.workloads[1].dark_at = Some(at(s, SignedDuration::from_secs(37)));
    };
    let decision = check(switching(true), seen_to_end, "Flip", "Switching");
    assert!(matches!(decision.step, Step::Flip { entry } if entry.outage_seconds == 37));
    // Kubernetes is given time to hear of the readiness before it hears of the selector, where something answers.
    let ready_for = |millis: i64| {
        move |s: &mut Snapshot| {
            s.workloads[0].pods[0].ready_since = Some(at(s, SignedDuration::from_millis(millis)));
        }
    };
    let decision = check(switching(true), ready_for(500), "WaitReady", "Switching");
    assert_eq!(decision.requeue.map(|wait| wait.as_millis()), Some(2500));
    check(switching(true), ready_for(3000), "Flip", "Switching");
    let nothing_answers = |s: &mut Snapshot| {
        ready_for(500)(s);
        s.workloads[1].pods[0].ready = false;
    };
    check(switching(true), nothing_answers, "Flip", "Switching");
    let first = |s: &mut Snapshot| {
        ready_for(500)(s);
        s.service.as_mut().unwrap().selected = None;
    };
    check(switching(true), first, "Flip", "Switching");
    check(switching(true), ready_for(-60_000), "Flip", "Switching");
    let unseen = |s: &mut Snapshot| {
        ready_for(500)(s);
        s.workloads.remove(1);
    };
    check(switching(true), unseen, "WaitReady", "Switching");
    let flipped = || {
        let (mut snapshot, target) = switching(true);
        snapshot.service.as_mut().unwrap().selected = Some(target.workload.clone());
        (snapshot, target)
    };
    check(
        flipped(),
        |s| s.service.as_mut().unwrap().foreign_endpoints = 1,
        "SettleEndpoints",
        "Settling",
    );
    check(
        flipped(),
        |s| s.workloads[0].ready_endpoints = 0,
        "SettleEndpoints",
        "Settling",
    );
    check(flipped(), |_| (), "DrainOld", "Draining");
    check(
        flipped(),
        |s| s.workloads[1].deleting = true,
        "Serving",
        "Serving",
    );
    check(serving(), |_| (), "Serving", "Serving");
    check(serving(), |s| s.service = None, "Flip", "Switching");
    let zero = |s: &mut Snapshot| {
        s.spec.serving.replicas = 0;
        s.workloads[0].pods.clear();
        s.workloads[0].ready_endpoints = 0;
    };
    check(serving(), zero, "Serving", "ScaledToZero");
}

/// What a switch comes from stands on the Service: an old view of Deployments takes nothing from the history.
#[test]
fn a_switch_from_a_server_that_is_not_seen() {
    let from = |quant: &str, bytes: &str, inputs: Option<&str>| {
        let leads_to = Selected {
            workload: "0ld".to_owned(),
            artifact: names::artifact_id(&testing::facts(bytes)),
            quant: quant.to_owned(),
            inputs: inputs.map(str::to_owned),
        };
        let unseen = move |s: &mut Snapshot| {
            s.workloads.remove(1);
            s.service.as_mut().unwrap().leads_to = Some(leads_to);
        };
        let decision = check(switching(true), unseen, "Flip", "Switching");
        let Step::Flip { entry } = decision.step else {
            panic!("{decision:?}")
        };
        assert_eq!(entry.from.as_deref(), Some(quant));
        entry.reason
    };
    let (_, target) = switching(true);
    assert_eq!(from("Q5_0", "Q5_0", None), "QuantEdited");
    assert_eq!(from("Q4_K_M", "Q5_0", None), "SourceEdited");
    assert_eq!(from("Q4_K_M", "Q4_K_M", Some("other")), "ServerEdited");
    let same = Some(target.inputs.as_str());
    assert_eq!(from("Q4_K_M", "Q4_K_M", same), "EngineUpdated");
}

#[test]
fn what_was_fetched_for_a_switch() {
    let bytes = |change: &dyn Fn(&mut Snapshot)| {
        let decision = check(switching(true), change, "Flip", "Switching");
        match decision.step {
            Step::Flip { entry } => entry.bytes_fetched,
            step => panic!("{step:?}"),
        }
    };
    let whole = i64::try_from(testing::facts("Q4_K_M").bytes).unwrap();
    let switched = |ago: SignedDuration| {
        move |s: &mut Snapshot| {
            let entry = history::switched(&switching(true).1, s);
            let time = at(s, ago);
            s.service.as_mut().unwrap().history = vec![HistoryEntry { time, ..entry }];
        }
    };
    assert_eq!(bytes(&|_| ()), whole);
    assert_eq!(bytes(&switched(MINUTE)), whole);
    assert_eq!(bytes(&switched(-MINUTE)), 0, "an earlier switch's volume");
    let adopted = |s: &mut Snapshot| s.model.created = s.now.checked_add(MINUTE).ok();
    assert_eq!(bytes(&adopted), 0, "an earlier KimiModel's volume");
}

#[test]
fn a_commit_that_is_gone_names_the_branch() {
    let at = testing::epoch();
    let gone = |s: &mut Snapshot| s.jobs[0].failure = failure("RevisionNotFound");
    let failed = JobPhase::Failed {
        at,
        permanent: true,
    };
    let decision = check(fetching(failed), gone, "WaitFetch", "RevisionNotFound");
    assert!(decision.stalled);
    assert!(
        decision.message.starts_with("main was commit c0ffee00"),
        "{}",
        decision.message
    );
}
