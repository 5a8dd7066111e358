//! What a user reads at each point of a model's life: the real pipeline over the cluster in memory, without a client.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use spec::HardwareName;

use super::super::apply;
use super::super::assess::assess;
use super::super::build::{Applied, Resources};
use super::super::plan::plan;
use super::super::progress::{Progress, State};
use super::super::usage::Usage;
use super::figures::share;
use super::{Inputs, differs, events, status, urgent};
use crate::crd::KimiModelStatus;
use crate::snapshot::Snapshot;
use crate::testing::cluster::Cluster;
use crate::testing::{self, MINIMAL, settings};

pub(super) fn show(snapshot: &Snapshot, previous: Option<&KimiModelStatus>) -> KimiModelStatus {
    let assessment = assess(&settings(), snapshot).unwrap();
    let decision = plan(&assessment, snapshot);
    let applied = Resources::<Applied>::default();
    status(Inputs {
        snapshot,
        assessment: &assessment,
        decision: &decision,
        applied: Ok(&applied),
        previous,
    })
}

fn word(status: &KimiModelStatus, kind: &str) -> (String, String) {
    let condition = condition(status, kind);
    (condition.status.clone(), condition.reason.clone())
}

fn condition<'a>(status: &'a KimiModelStatus, kind: &str) -> &'a Condition {
    status
        .conditions
        .iter()
        .find(|condition| condition.type_ == kind)
        .unwrap()
}

/// Runs up to `ticks` and returns each different (Ready, ArtifactReady, Serving, Reconciling, Stalled) in turn, and the
/// last status.
fn story(
    cluster: &mut Cluster,
    ticks: u32,
    before: Option<&KimiModelStatus>,
) -> (Vec<String>, KimiModelStatus) {
    let mut lines: Vec<String> = Vec::new();
    let mut last = show(&cluster.see(), before);
    for _ in 0..ticks {
        last = show(&cluster.see(), Some(&last));
        let short = |kind: &str| word(&last, kind).0;
        let line = format!(
            "{} {} {} {} {}",
            short("Ready"),
            short("ArtifactReady"),
            short("Serving"),
            short("Reconciling"),
            short("Stalled")
        );
        if lines.last() != Some(&line) {
            lines.push(line);
        }
        cluster.reconcile();
        cluster.tick();
    }
    (lines, last)
}

fn deployed(quant: &str) -> (Cluster, KimiModelStatus) {
    let mut cluster = Cluster::new(testing::model(MINIMAL), &["Q4_K_M", "Q8_0"]);
    cluster.edit(|spec| spec.quant = Some(quant.to_owned()));
    let (_, status) = story(&mut cluster, 40, None);
    assert_eq!(word(&status, "Ready").0, "True", "{status:?}");
    (cluster, status)
}

#[test]
fn a_first_deploy_is_unknown_until_it_is_true() {
    let mut cluster = Cluster::new(testing::model(MINIMAL), &["Q4_K_M"]);
    let (lines, last) = story(&mut cluster, 40, None);
    // Ready, ArtifactReady, Serving, Reconciling, Stalled
    let expected = [
        "Unknown Unknown False True False",
        "Unknown False False True False",
        "Unknown True False True False",
        "True True True False False",
    ];
    assert_eq!(lines, expected);
    assert_eq!(
        word(&last, "Planned"),
        ("True".to_owned(), "Fits".to_owned())
    );
    assert_eq!(
        word(&last, "Accelerated"),
        ("False".to_owned(), "NotRequested".to_owned())
    );
    assert_eq!(last.active_quant.as_deref(), Some("Q4_K_M"));
    assert_eq!(last.target_quant.as_deref(), Some("Q4_K_M"));
    assert_eq!(
        last.endpoint.as_deref(),
        Some("http://reader.llm.svc:8080/v1")
    );
    assert_eq!(last.replicas, Some(1));
    let artifact = last.artifact.unwrap();
    assert_eq!(
        (
            artifact.downloaded_bytes,
            artifact.shards_done,
            artifact.verified
        ),
        (Some(9_000_000), Some(3), true)
    );
    let timings = last.timings.unwrap();
    assert!(
        timings.inspect_seconds.is_some() && timings.fetch_seconds.is_some(),
        "{timings:?}"
    );
    for condition in &last.conditions {
        assert_eq!(
            condition.observed_generation,
            Some(1),
            "{}",
            condition.type_
        );
    }
}

#[test]
fn what_people_wait_for_is_urgent_and_progress_is_not() {
    let (_, serving) = deployed("Q4_K_M");
    assert!(urgent(None, &serving));
    let mut edited = serving.clone();
    edited.observed_generation = serving.observed_generation.map(|at| at + 1);
    assert!(urgent(Some(&serving), &edited));
    let mut further = serving.clone();
    further.progress = Some("Q4_K_M: 12% of 9 MB".to_owned());
    assert!(!urgent(Some(&serving), &further));
    for (kind, expected) in [
        ("Ready", true),
        ("Stalled", true),
        ("Planned", false),
        ("Reconciling", false),
    ] {
        let mut new = serving.clone();
        let mut conditions = new.conditions.iter_mut();
        let condition = conditions
            .find(|condition| condition.type_ == kind)
            .unwrap();
        condition.status = "Unknown".to_owned();
        assert_eq!(urgent(Some(&serving), &new), expected, "{kind}");
    }
}

#[test]
fn an_edit_keeps_ready_true_and_says_reconciling() {
    let (mut cluster, before) = deployed("Q4_K_M");
    cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
    let (lines, after) = story(&mut cluster, 40, Some(&before));
    assert!(
        lines.iter().all(|line| line.starts_with("True ")),
        "{lines:?}"
    );
    assert!(
        lines.iter().any(|line| line.ends_with("True False")),
        "never reconciling: {lines:?}"
    );
    assert_eq!(after.active_quant.as_deref(), Some("Q8_0"));
    assert_eq!(after.last_switch.as_ref().unwrap().outage_seconds, 0);
    assert_eq!(
        condition(&after, "Ready").last_transition_time,
        condition(&before, "Ready").last_transition_time
    );
}

#[test]
fn a_quant_that_is_not_there_stalls_and_keeps_serving() {
    let (mut cluster, before) = deployed("Q4_K_M");
    cluster.edit(|spec| spec.quant = Some("Q9_X".to_owned()));
    let (_, status) = story(&mut cluster, 10, Some(&before));
    assert_eq!(
        word(&status, "Stalled"),
        ("True".to_owned(), "QuantNotFound".to_owned())
    );
    assert_eq!(word(&status, "Ready").0, "True");
    assert_eq!(
        word(&status, "Planned"),
        ("False".to_owned(), "QuantNotFound".to_owned())
    );
    assert_eq!(status.active_quant.as_deref(), Some("Q4_K_M"));
    assert_eq!(status.target_quant.as_deref(), Some("Q9_X"));
    assert_eq!(
        status.artifact.as_ref().unwrap().quant,
        "Q4_K_M",
        "what serves is still shown"
    );

    cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
    let (_, healed) = story(&mut cluster, 40, Some(&status));
    assert_eq!(word(&healed, "Stalled").0, "False");
    assert_eq!(healed.active_quant.as_deref(), Some("Q8_0"));
}

#[test]
fn refusals_say_why() {
    let mut gpu = testing::snapshot(MINIMAL);
    gpu.spec.hardware = HardwareName::T4;
    let mut big = testing::snapshot("{model: Kimi-K2-Instruct, quant: UD-Q4_K_XL, hardware: T4}");
    big.nodes.clear();
    let unknown = testing::snapshot("{model: Kimi-K9, quant: UD-Q4_K_XL, hardware: CPU}");
    for (snapshot, kind, reason, status_word) in [
        (&big, "Planned", "VramTooSmall", "False"),
        (&big, "Stalled", "DoesNotFit", "True"),
        (&big, "Ready", "DoesNotFit", "False"),
        (&gpu, "Accelerated", "AccelerationUnavailable", "False"),
        (&unknown, "Planned", "UnknownModel", "False"),
        (&unknown, "Ready", "UnknownModel", "False"),
    ] {
        let status = show(snapshot, None);
        let expected = (status_word.to_owned(), reason.to_owned());
        assert_eq!(word(&status, kind), expected, "{kind}: {status:?}");
    }
    let plan = show(&big, None).plan.unwrap();
    assert_eq!(plan.fits, "no");
}

#[test]
fn a_suspended_model_is_not_ready_and_not_stalled() {
    let (mut cluster, before) = deployed("Q4_K_M");
    cluster.edit(|spec| spec.suspend = true);
    let (_, status) = story(&mut cluster, 10, Some(&before));
    assert_eq!(
        word(&status, "Ready"),
        ("False".to_owned(), "Suspended".to_owned())
    );
    assert_eq!(
        (word(&status, "Stalled").0, word(&status, "Reconciling").0),
        ("False".to_owned(), "False".to_owned())
    );
    assert_eq!(status.active_quant, None);
}

#[test]
fn weights_that_changed_under_the_server_are_not_ready() {
    let (cluster, before) = deployed("Q4_K_M");
    let mut snapshot = cluster.see();
    let active = snapshot.active().unwrap().id.clone();
    let mut workloads = snapshot.workloads.iter_mut();
    let workload = workloads.find(|workload| workload.id == active).unwrap();
    workload.pods[0].usage = Some(Usage {
        weights_changed: Some("tiny-00002-of-00003.gguf".to_owned()),
        ..Usage::default()
    });
    let status = show(&snapshot, Some(&before));
    for (kind, value) in [("Ready", "False"), ("Stalled", "True")] {
        let condition = condition(&status, kind);
        assert_eq!(condition.status, value);
        assert_eq!(condition.reason, "WeightsChanged");
        for part in [
            "tiny-00002-of-00003.gguf of Q4_K_M",
            "kimioperator.dev/refetch",
            "kimioperator.dev/restart",
        ] {
            assert!(condition.message.contains(part), "{condition:?}");
        }
    }
    assert_eq!(word(&status, "Reconciling").0, "False");
    assert_eq!(word(&status, "Serving").0, "True", "the endpoint stays");

    // While the files are mended it is not ready, and under way.
    snapshot.model.refetch = Some("again".to_owned());
    let status = show(&snapshot, Some(&status));
    let words = ["Ready", "Stalled", "Reconciling"].map(|kind| word(&status, kind).0);
    assert_eq!(words, ["False", "False", "True"]);
}

#[test]
fn an_unchanged_status_is_not_written_and_a_deleted_one_is_made_again() {
    let (mut cluster, status) = deployed("Q4_K_M");
    cluster.tick();
    let again = show(&cluster.see(), Some(&status));
    assert!(!differs(Some(&status), &again), "{status:?}\n{again:?}");

    // As read back from the API server, with a condition of somebody else in it.
    let mut read: KimiModelStatus =
        serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
    let foreign = Condition {
        type_: "Audited".to_owned(),
        ..read.conditions[0].clone()
    };
    read.conditions.insert(0, foreign);
    assert!(!differs(Some(&read), &again));
    read.active_quant = Some("Q8_0".to_owned());
    assert!(differs(Some(&read), &again));

    let fresh = show(&cluster.see(), None);
    assert!(differs(None, &fresh));
    let words = |status: &KimiModelStatus| {
        status
            .conditions
            .iter()
            .map(|c| (c.type_.clone(), c.status.clone(), c.message.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(words(&fresh), words(&status));
    assert_eq!(
        (fresh.artifact, fresh.active_quant),
        (status.artifact, status.active_quant)
    );
}

#[test]
fn a_refused_write_is_said_and_serving_goes_on() {
    let (cluster, before) = deployed("Q4_K_M");
    let snapshot = cluster.see();
    let assessment = assess(&settings(), &snapshot).unwrap();
    let decision = plan(&assessment, &snapshot);
    let error = apply::Error::NameTaken {
        kind: "Service",
        name: "reader".to_owned(),
    };
    let status = status(Inputs {
        snapshot: &snapshot,
        assessment: &assessment,
        decision: &decision,
        applied: Err(&error),
        previous: Some(&before),
    });
    assert_eq!(
        word(&status, "Stalled"),
        ("True".to_owned(), "NameTaken".to_owned())
    );
    assert_eq!(word(&status, "Reconciling").0, "False");
    assert_eq!(word(&status, "Ready").0, "True");
}

#[test]
fn progress_is_a_few_words() {
    let progress = |state, downloaded, eta_seconds| Progress {
        state,
        bytes: 245_000_000_000,
        downloaded,
        bytes_per_second: 118_000_000,
        eta_seconds,
        shards: 6,
        shards_done: 2,
        message: String::new(),
    };
    for (progress, words) in [
        (
            progress(State::Downloading, 122_499_999_999, Some(1039)),
            "49% of 245 GB, 118 MB/s, 18m left",
        ),
        (
            progress(State::Downloading, 0, None),
            "0% of 245 GB, 118 MB/s",
        ),
        (
            progress(State::Downloading, 245_000_000_000, Some(7500)),
            "100% of 245 GB, 118 MB/s, 2h05m left",
        ),
        (
            progress(State::Verifying, 245_000_000_000, None),
            "verifying, 2/6 shards",
        ),
    ] {
        assert_eq!(share(&progress), words);
    }
}

/// What `kubectl describe` tells of a deploy, an edit, a bad quant and weights that cannot serve: each once.
#[test]
fn events_tell_each_step_once() {
    let mut cluster = Cluster::new(testing::model(MINIMAL), &["Q4_K_M", "Q8_0", "Q5_0"]);
    let mut last: Option<KimiModelStatus> = None;
    let mut told = |cluster: &mut Cluster| {
        let mut reasons = Vec::new();
        for _ in 0..60 {
            let status = show(&cluster.see(), last.as_ref());
            reasons.extend(
                events::news(last.as_ref(), &status)
                    .into_iter()
                    .map(|event| event.reason),
            );
            last = Some(status);
            cluster.reconcile();
            cluster.tick();
        }
        // Each of its tries may say the same.
        reasons.dedup();
        reasons
    };
    assert_eq!(told(&mut cluster), ["Planned", "Staged", "Switched"]);
    assert!(told(&mut cluster).is_empty());
    cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
    assert_eq!(told(&mut cluster), ["Planned", "Staged", "Switched"]);
    cluster.edit(|spec| spec.quant = Some("Q9_X".to_owned()));
    assert_eq!(told(&mut cluster), ["QuantNotFound"]);
    cluster.broken.insert("Q5_0".to_owned());
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    assert_eq!(
        told(&mut cluster),
        ["Planned", "Staged", "LoadFailed", "RolledBack"]
    );
}
