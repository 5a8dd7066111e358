//! Lives in which servers give way to each other: one slot, rollbacks, upgrades, one GPU, and room for one set of
//! weights only.

use super::*;
use crate::crd::{HistoryEntry, Outcome};

fn newest(cluster: &Cluster) -> HistoryEntry {
    cluster.see().service.unwrap().history.remove(0)
}

/// Shrinks the Node until one server fits.
fn one_slot(cluster: &mut Cluster) {
    let target = testing::assessed(&cluster.see()).target.unwrap();
    cluster.nodes[0].1 = target.memory_request * 3 / 2;
}

#[test]
fn one_slot_stops_the_old_only_after_a_minute() {
    let mut cluster = serving("Q4_K_M");
    one_slot(&mut cluster);
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q5_0"));
    assert!(
        cluster.steps.contains(&"StopOld".to_owned()),
        "{:?}",
        cluster.steps
    );
    let outage = cluster
        .see()
        .service
        .and_then(|service| service.last_switch)
        .unwrap()
        .outage_seconds;
    assert!(
        cluster.dark > 0 && outage > 0 && outage < 60,
        "{} ticks, {outage} s",
        cluster.dark
    );
}

#[test]
fn one_slot_reverted_while_stopped_starts_the_old_again() {
    let mut cluster = serving("Q4_K_M");
    one_slot(&mut cluster);
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    while cluster.reconcile().step != Step::StopOld {
        cluster.tick();
    }
    cluster.tick();
    cluster.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
    assert_eq!(cluster.deployments.len(), 1);
}

#[test]
fn a_stop_that_was_reverted_is_forgotten() {
    let mut cluster = serving("Q4_K_M");
    let whole = cluster.nodes[0].1;
    one_slot(&mut cluster);
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    while cluster.reconcile().step != Step::StopOld {
        cluster.tick();
    }
    cluster.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.see().active().unwrap().stopped_at, None);
    cluster.nodes[0].1 = whole;
    cluster.edit(|spec| spec.serving.replicas = 0);
    assert_eq!(cluster.settle(LONG).reason, Reason::ScaledToZero);
    cluster.edit(|spec| {
        spec.serving.replicas = 1;
        spec.quant = Some("Q8_0".to_owned());
    });
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let switch = cluster.see().service.unwrap().last_switch.unwrap();
    assert_eq!((switch.to.as_str(), switch.outage_seconds), ("Q8_0", 0));
}

#[test]
fn weights_that_cannot_serve_leave_the_old_in_place() {
    let mut cluster = serving("Q4_K_M");
    cluster.broken.insert("Q5_0".to_owned());
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    let decision = cluster.settle(30);
    assert_eq!(
        (decision.step, decision.reason),
        (Step::RolledBack, Reason::RolledBack)
    );
    assert!(decision.stalled, "{}", decision.message);
    assert!(
        decision.message.contains("not finite"),
        "{}",
        decision.message
    );
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q4_K_M"), 0)
    );
    let entry = newest(&cluster);
    assert_eq!(
        (entry.outcome, entry.reason.as_str(), entry.bytes_fetched),
        (Outcome::RolledBack, "LoadFailed", 9_000_000)
    );
    let writes = cluster.writes;
    cluster.settle(30);
    assert_eq!(cluster.writes, writes, "the same spec is not tried again");
    cluster.model.status = None;
    assert_eq!(
        cluster.reconcile().step,
        Step::RolledBack,
        "no decision reads the status"
    );
    cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q8_0"), 0)
    );
}

/// The one-slot path: the old server was stopped for weights that then cannot serve.
#[test]
fn one_slot_and_weights_that_cannot_serve_start_the_old_again() {
    for stuck in [false, true] {
        let mut cluster = serving("Q4_K_M");
        one_slot(&mut cluster);
        if !stuck {
            cluster.broken.insert("Q5_0".to_owned());
        }
        cluster.edit(|spec| {
            spec.quant = Some("Q5_0".to_owned());
            spec.rollout.progress_deadline_seconds = Some(100);
        });
        while cluster.reconcile().step != Step::StopOld {
            cluster.tick();
        }
        cluster.stuck = stuck;
        while !matches!(cluster.reconcile().step, Step::GiveUp { .. }) {
            cluster.tick();
        }
        cluster.stuck = false;
        assert_eq!(cluster.settle(LONG).step, Step::RolledBack);
        assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
        assert_eq!(cluster.see().active().unwrap().stopped_at, None);
        let entry = newest(&cluster);
        let dark = i64::from(cluster.dark) * 5;
        assert!(
            (dark - 10..=dark + 10).contains(&entry.outage_seconds),
            "{entry:?} against {dark} s"
        );
        let writes = cluster.writes;
        cluster.settle(30);
        assert_eq!(
            cluster.writes, writes,
            "and the same spec is not tried again"
        );
        cluster.broken.clear();
        cluster.edit(|spec| spec.rollout.progress_deadline_seconds = None);
        assert_eq!(cluster.settle(LONG).step, Step::Serving);
        assert_eq!(active_quant(&cluster).as_deref(), Some("Q5_0"));
    }
}

/// The old server was stopped for a spec that was then replaced by one that leads nowhere.
#[test]
fn one_slot_and_an_edit_that_leads_nowhere_start_the_old_again() {
    for nowhere in [
        |spec: &mut spec::KimiModelSpec| spec.quant = Some("Q9_9".to_owned()),
        |spec: &mut spec::KimiModelSpec| spec.model = Some("Kimi-K9".to_owned()),
        |spec: &mut spec::KimiModelSpec| spec.serving.context_length = Some(8192),
    ] {
        let mut cluster = serving("Q4_K_M");
        one_slot(&mut cluster);
        cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
        while cluster.reconcile().step != Step::StopOld {
            cluster.tick();
        }
        cluster.tick();
        cluster.edit(nowhere);
        let decision = cluster.settle(20);
        assert!(decision.stalled, "{}", decision.message);
        for _ in 0..10 {
            cluster.reconcile();
            cluster.tick();
        }
        assert_eq!(
            (active_quant(&cluster).as_deref(), cluster.deployments.len()),
            (Some("Q4_K_M"), 1),
            "{}",
            decision.message
        );
    }
}

#[test]
fn a_first_deploy_that_cannot_serve_is_said_and_heals() {
    let mut cluster = cluster(MINIMAL);
    (cluster.exit_code, cluster.broken) = (2, ["Q4_K_M".to_owned()].into());
    let decision = cluster.settle(LONG);
    assert_eq!(
        (decision.step, decision.reason),
        (Step::WaitReady, Reason::Reported("LoadFailed".to_owned()))
    );
    let writes = cluster.writes;
    cluster.settle(30);
    assert_eq!(
        cluster.writes, writes,
        "the kubelet tries on, the operator waits"
    );
    cluster.broken.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
}

/// Servers of another version of the operator: with its annotation, and from before there was one.
#[test]
fn an_upgrade_restarts_no_model_by_itself() {
    for legacy in [false, true] {
        let mut cluster = serving("Q4_K_M");
        let workload = |cluster: &Cluster| cluster.see().active().unwrap().id.clone();
        let before = workload(&cluster);
        if legacy {
            let deployment = cluster.deployments.values_mut().next().unwrap();
            let annotations = deployment.metadata.annotations.as_mut().unwrap();
            annotations.remove(names::ANNOTATION_INPUTS);
        }
        cluster.settings.worker_image = "registry.example/kimi-worker:2".to_owned();
        assert_eq!(cluster.settle(10).step, Step::Serving);
        assert_eq!(workload(&cluster), before, "legacy: {legacy}");
        assert_eq!(cluster.deployments.len(), 1);
        let writes = cluster.writes;
        cluster.settle(10);
        assert_eq!(cluster.writes, writes);

        cluster.edit(|spec| spec.memory = Some("8Gi".to_owned()));
        assert_eq!(cluster.settle(LONG).step, Step::Serving);
        assert_ne!(workload(&cluster), before, "an edit brings the new version");
        let entry = newest(&cluster);
        assert_eq!((entry.reason.as_str(), cluster.dark), ("ServerEdited", 0));

        let edited = workload(&cluster);
        cluster.settings.worker_image = "registry.example/kimi-worker:3".to_owned();
        cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
        assert_eq!(cluster.settle(LONG).step, Step::Serving);
        cluster.settings.worker_image = "registry.example/kimi-worker:4".to_owned();
        cluster.edit(|spec| spec.rollout.engine_update = spec::EngineUpdate::Automatic);
        assert_eq!(cluster.settle(LONG).step, Step::Serving);
        assert_ne!(workload(&cluster), edited);
        let entry = newest(&cluster);
        assert_eq!((entry.reason.as_str(), cluster.dark), ("EngineUpdated", 0));
    }
}

#[test]
fn an_upgrade_during_an_edit_and_a_scale_to_zero() {
    let newer = "registry.example/kimi-worker:2";
    let mut cluster = serving("Q4_K_M");
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    while cluster.reconcile().step != Step::WaitReady {
        cluster.tick();
    }
    let started: Vec<String> = cluster.deployments.keys().cloned().collect();
    cluster.settings.worker_image = newer.to_owned();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let active = cluster.see().active().unwrap().name.clone();
    assert!(
        started.contains(&active),
        "what loads already goes on loading"
    );

    cluster.edit(|spec| spec.serving.replicas = 0);
    assert_eq!(cluster.settle(LONG).reason, Reason::ScaledToZero);
    cluster.edit(|spec| spec.serving.replicas = 1);
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_ne!(
        cluster.see().active().unwrap().name,
        active,
        "nothing ran: the new version costs nothing"
    );
}

const GPU: &str = "{quant: Q4_K_M, hardware: T4, source: {huggingFace: {repo: lab/Kimi-Tiny-GGUF}},
  serving: {cpuFallback: Allow}}";

/// One GPU: the scheduler names it, so nobody waits for a minute, and the outage is a drain and a load.
#[test]
fn one_gpu_is_handed_over_at_once() {
    let mut cluster = self::cluster(GPU);
    cluster.product = Some("Tesla-T4");
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert!(cluster.see().active().unwrap().gpu);
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q5_0"));
    let entry = newest(&cluster);
    assert!(
        entry.outage_seconds > 0 && entry.outage_seconds <= 30,
        "{entry:?}, {} ticks dark",
        cluster.dark
    );
    cluster.broken.insert("Q8_0".to_owned());
    cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::RolledBack);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q5_0"));
}

/// Whether a GPU is requested is decided when a server starts, not when a Node comes or goes.
#[test]
fn a_gpu_that_appears_or_restarts_rolls_no_server() {
    let mut cluster = self::cluster(GPU);
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let before = cluster.see().active().unwrap().id.clone();
    cluster.product = Some("Tesla-T4");
    assert_eq!(cluster.settle(10).step, Step::Serving);
    assert_eq!(cluster.see().active().unwrap().id, before);
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let with_gpu = cluster.see().active().unwrap().id.clone();
    assert!(cluster.see().active().unwrap().gpu);
    cluster.product = None;
    assert_eq!(cluster.settle(10).step, Step::Serving);
    assert_eq!(
        cluster.see().active().unwrap().id,
        with_gpu,
        "it still answers"
    );
    cluster.lose_pods();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert!(
        !cluster.see().active().unwrap().gpu,
        "no Node has the GPU any more"
    );
}

/// Room for one set of weights: refused with the numbers, and Replace gets through at the price of an outage.
#[test]
fn a_disk_for_one_set_of_weights() {
    let mut cluster = serving("Q4_K_M");
    cluster.disk = 1_500_000_000;
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    let decision = cluster.settle(10);
    assert_eq!(decision.reason, Reason::InsufficientStorage);
    for words in ["9 MB", "statvfs", "rollout.strategy: Replace", "reader-"] {
        assert!(
            decision.message.contains(words),
            "{words}: {}",
            decision.message
        );
    }
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q4_K_M"), 0)
    );

    cluster.edit(|spec| spec.rollout.strategy = spec::Strategy::Replace);
    assert_eq!(cluster.settle(2 * LONG).step, Step::Serving);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q5_0"));
    assert_eq!((cluster.claims.len(), cluster.deployments.len()), (1, 1));
    let entry = newest(&cluster);
    let dark = i64::from(cluster.dark) * 5;
    assert!(
        cluster.dark > 0 && (dark - 10..=dark + 10).contains(&entry.outage_seconds),
        "{entry:?} against {dark} s"
    );
}

/// Until the old weights are deleted, an edit back loses nothing; afterwards they are fetched again.
#[test]
fn replace_reverted_at_every_moment() {
    for ticks in 0..30 {
        let mut cluster = serving("Q4_K_M");
        cluster.edit(|spec| spec.rollout.strategy = spec::Strategy::Replace);
        cluster.settle(5);
        let (fetched, claim) = (
            cluster.fetched,
            cluster.claims.keys().next().cloned().unwrap(),
        );
        cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
        for _ in 0..ticks {
            cluster.reconcile();
            cluster.tick();
        }
        let kept = cluster
            .claims
            .get(&claim)
            .is_some_and(|claim| claim.metadata.deletion_timestamp.is_none());
        cluster.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
        assert_eq!(
            cluster.settle(2 * LONG).step,
            Step::Serving,
            "after {ticks} ticks"
        );
        assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
        assert!(
            !kept || cluster.fetched <= fetched + 4,
            "after {ticks} ticks"
        );
    }
}

/// What a volume cannot become is said, and what serves goes on.
#[test]
fn a_class_that_cannot_change() {
    let mut cluster = serving("Q4_K_M");
    cluster.edit(|spec| spec.storage.storage_class_name = Some("fast".to_owned()));
    assert_eq!(
        cluster.settle(10).step,
        Step::Serving,
        "the cluster's default is not contradicted"
    );
    let claim = cluster.claims.values_mut().next().unwrap();
    claim.spec.as_mut().unwrap().storage_class_name = Some("slow".to_owned());
    let decision = cluster.settle(10);
    assert_eq!(decision.reason, Reason::StorageUnchangeable);
    assert!(
        decision.message.contains("StorageClass slow"),
        "{}",
        decision.message
    );
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q4_K_M"), 0)
    );
    cluster.edit(|spec| spec.storage.storage_class_name = None);
    assert_eq!(cluster.settle(10).step, Step::Serving);
}
