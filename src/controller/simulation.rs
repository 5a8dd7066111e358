//! Whole lives of a KimiModel, decided by the real planner and acted out by the cluster in memory: deploys, edits, bad
//! input, deletions by hand, and an operator that dies before any of its writes. No cluster and no clock.

mod annotations;
mod lives;
mod rollout;
mod storage;

use super::plan::{Reason, Step};
use crate::names;
use crate::testing::cluster::Cluster;
use crate::testing::{self, MINIMAL};

/// Ticks of five seconds within which everything but a long pause ends.
const LONG: u32 = 60;

fn cluster(spec: &str) -> Cluster {
    Cluster::new(testing::model(spec), &["Q4_K_M", "Q5_0", "Q8_0"])
}

fn serving(quant: &str) -> Cluster {
    let mut cluster = cluster(MINIMAL);
    cluster.edit(|spec| spec.quant = Some(quant.to_owned()));
    let decision = cluster.settle(LONG);
    assert_eq!(decision.step, Step::Serving, "{}", decision.message);
    cluster.steps.clear();
    cluster.dark = 0;
    cluster
}

fn active_quant(cluster: &Cluster) -> Option<String> {
    cluster
        .see()
        .active()
        .filter(|active| active.ready_endpoints > 0)
        .map(|active| active.quant.clone())
}

#[test]
fn first_deploy() {
    let mut cluster = cluster(MINIMAL);
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
    let steps = [
        "Inspect",
        "WaitInspect",
        "Fetch",
        "WaitFetch",
        "MarkVerified",
        "Start",
        "WaitReady",
        "Flip",
        "Serving",
    ];
    assert_eq!(cluster.steps, steps);
    let writes = cluster.writes;
    cluster.tick();
    cluster.reconcile();
    assert_eq!(cluster.writes, writes, "an idle operator writes nothing");
}

#[test]
fn a_quant_edit_is_never_dark() {
    let mut cluster = serving("Q4_K_M");
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q5_0"), 0)
    );
    assert_eq!(cluster.deployments.len(), 1, "the old server is gone");
    assert_eq!(cluster.claims.len(), 2, "its weights are kept");
    let switch = cluster
        .see()
        .service
        .and_then(|service| service.last_switch)
        .unwrap();
    assert_eq!(
        (
            switch.from.as_deref(),
            switch.to.as_str(),
            switch.outage_seconds
        ),
        (Some("Q4_K_M"), "Q5_0", 0)
    );
    let fetched = cluster.fetched;
    cluster.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(
        (cluster.fetched, cluster.dark),
        (fetched, 0),
        "switching back fetches nothing"
    );
}

#[test]
fn a_quant_that_does_not_exist_then_corrected() {
    let mut cluster = serving("Q4_K_M");
    cluster.edit(|spec| spec.quant = Some("Q9_9".to_owned()));
    let decision = cluster.settle(10);
    assert_eq!(
        decision.reason,
        Reason::Reported("QuantNotFound".to_owned())
    );
    assert!(
        decision.stalled && decision.message.contains("it has Q4_K_M, Q5_0, Q8_0"),
        "{}",
        decision.message
    );
    assert_eq!(
        active_quant(&cluster).as_deref(),
        Some("Q4_K_M"),
        "the old keeps serving"
    );
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q5_0"), 0)
    );
    assert!(
        cluster
            .jobs
            .values()
            .all(|job| job.metadata.deletion_timestamp.is_none())
    );
    assert_eq!(cluster.jobs.len(), 2, "the failed inspect Job is gone");
}

#[test]
fn a_permanent_failure_is_tried_again_after_its_pause_and_at_once_after_an_edit() {
    let mut cluster = cluster(MINIMAL);
    let facts = cluster.hub.remove("Q4_K_M").unwrap();
    let decision = cluster.settle(30);
    assert_eq!(decision.step, Step::WaitInspect);
    let writes = cluster.writes;
    cluster.settle(30);
    assert_eq!(cluster.writes, writes, "no hot loop");
    cluster.hub.insert("Q4_K_M".to_owned(), facts.clone());
    assert_eq!(
        cluster.settle(150).step,
        Step::Serving,
        "mended at the hub: found within the pause"
    );

    let mut cluster = Cluster::new(testing::model(MINIMAL), &[]);
    cluster.settle(10);
    cluster.hub.insert("Q4_K_M".to_owned(), facts);
    cluster.edit(|spec| {
        let hub = spec.source.as_mut().unwrap().hugging_face.as_mut().unwrap();
        hub.token_secret_ref = Some(spec::SecretKeyRef {
            name: "hub".to_owned(),
            key: "token".to_owned(),
        });
    });
    assert_eq!(
        cluster.settle(LONG).step,
        Step::Serving,
        "a token mends a gated source without waiting"
    );
}

#[test]
fn a_failed_fetch_is_retried_and_resumes() {
    let mut cluster = cluster(MINIMAL);
    cluster.outages = 3;
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let whole = cluster.fetched;

    let mut cluster = self::cluster(MINIMAL);
    while cluster.reconcile().step != Step::WaitFetch {
        cluster.tick();
    }
    for _ in 0..3 {
        cluster.tick();
        cluster.reconcile();
    }
    cluster.jobs.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.fetched, whole, "a deleted Job costs no byte");
}

#[test]
fn a_full_disk_is_healed_by_more_headroom() {
    let full = || Reason::Reported("DiskFull".to_owned());
    let more = |spec: &mut spec::KimiModelSpec| spec.storage.headroom = Some("2G".to_owned());
    let mut cluster = cluster(MINIMAL);
    cluster.room = 2_000_000_000;
    assert_eq!(cluster.settle(10).reason, full());
    cluster.edit(more);
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let writes = cluster.writes;
    cluster.edit(|spec| spec.storage.headroom = Some("4G".to_owned()));
    cluster.settle(5);
    assert_eq!(cluster.writes, writes, "verified weights need no more room");

    let mut cluster = self::cluster(MINIMAL);
    (cluster.room, cluster.expandable) = (2_000_000_000, false);
    cluster.settle(10);
    cluster.edit(more);
    assert_eq!(cluster.settle(10).reason, full());
    cluster.edit(|spec| spec.suspend = true);
    cluster.settle(5);
    let stopped = |job: &k8s_openapi::api::batch::v1::Job| {
        job.metadata
            .name
            .as_deref()
            .is_some_and(|name| name.contains("fetch"))
            && job.spec.as_ref().unwrap().suspend == Some(true)
    };
    assert!(
        cluster.jobs.values().any(stopped),
        "a volume that cannot grow holds up nothing else"
    );
}

#[test]
fn an_edit_reverted_midway_leaves_no_trace() {
    let untouched = serving("Q4_K_M").essence();
    for ticks in 0..20 {
        let mut cluster = serving("Q4_K_M");
        cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
        for _ in 0..ticks {
            cluster.reconcile();
            cluster.tick();
        }
        cluster.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
        assert_eq!(cluster.settle(LONG).step, Step::Serving);
        assert_eq!(
            (cluster.essence(), cluster.dark),
            (untouched.clone(), 0),
            "reverted after {ticks} ticks"
        );
    }
}

#[test]
fn status_and_finished_jobs_deleted_change_nothing() {
    let mut cluster = serving("Q4_K_M");
    let (essence, fetched) = (cluster.essence(), cluster.fetched);
    cluster.model.status = None;
    cluster.jobs.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(
        (cluster.essence(), cluster.fetched, cluster.dark),
        (essence, fetched, 0)
    );
    assert!(cluster.jobs.is_empty(), "no Job is needed again");
}

#[test]
fn a_deleted_service_or_deployment_comes_back() {
    let mut cluster = serving("Q4_K_M");
    let essence = cluster.essence();
    cluster.service = None;
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.essence(), essence);
    cluster.deployments.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.essence(), essence);
}

#[test]
fn suspend_and_resume_at_every_moment() {
    let done = serving("Q5_0");
    for ticks in 0..20 {
        let mut cluster = serving("Q4_K_M");
        cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
        for _ in 0..ticks {
            cluster.reconcile();
            cluster.tick();
        }
        cluster.edit(|spec| spec.suspend = true);
        assert_eq!(cluster.settle(LONG).step, Step::Suspended);
        assert!(
            cluster
                .deployments
                .values()
                .all(|d| d.spec.as_ref().unwrap().replicas == Some(0))
        );
        cluster.edit(|spec| spec.suspend = false);
        assert_eq!(cluster.settle(LONG).step, Step::Serving);
        assert_eq!(
            cluster.essence(),
            done.essence(),
            "suspended after {ticks} ticks"
        );
    }
}

#[test]
fn hardware_that_does_not_fit_starts_no_job() {
    let mut cluster = cluster("{model: Kimi-K2-Instruct, quant: UD-Q4_K_XL, hardware: T4}");
    let decision = cluster.settle(5);
    assert_eq!(
        (decision.step, decision.reason),
        (Step::Refused, Reason::DoesNotFit)
    );
    assert!(decision.message.contains("16 GB"), "{}", decision.message);
    assert!(cluster.jobs.is_empty() && cluster.claims.is_empty());
}

#[test]
fn scaling_to_zero_keeps_the_weights() {
    let mut cluster = serving("Q4_K_M");
    cluster.edit(|spec| spec.serving.replicas = 0);
    let decision = cluster.settle(LONG);
    assert_eq!(
        (decision.step, decision.reason),
        (Step::Serving, Reason::ScaledToZero)
    );
    cluster.edit(|spec| {
        spec.quant = Some("Q5_0".to_owned());
    });
    assert_eq!(cluster.settle(LONG).reason, Reason::ScaledToZero);
    cluster.edit(|spec| spec.serving.replicas = 1);
    assert_eq!(cluster.settle(LONG).reason, Reason::Serving);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q5_0"));
}

/// Deploy, edit, revert, edit again, with the operator dying before its n-th write, for every n.
#[test]
fn dying_before_any_write_changes_nothing() {
    fn life(dies_before: Option<u32>) -> Cluster {
        let mut cluster = cluster(MINIMAL);
        cluster.dies_before = dies_before;
        let live = |cluster: &mut Cluster, ticks: u32| {
            for _ in 0..ticks {
                cluster.reconcile();
                cluster.tick();
                if cluster.dies_before.is_some_and(|at| cluster.writes >= at) {
                    // Dead for a while, then restarted with no memory.
                    cluster.tick();
                    cluster.tick();
                    cluster.dies_before = None;
                }
            }
        };
        live(&mut cluster, 25);
        cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
        live(&mut cluster, 6);
        cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
        live(&mut cluster, 30);
        cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
        live(&mut cluster, 30);
        cluster
    }
    let whole = life(None);
    assert_eq!(active_quant(&whole).as_deref(), Some("Q5_0"));
    assert!(whole.writes > 20);
    for n in 0..whole.writes {
        let crashed = life(Some(n));
        assert_eq!(crashed.essence(), whole.essence(), "died before write {n}");
        assert!(
            crashed.fetched <= whole.fetched,
            "died before write {n}: fetched again"
        );
        assert_eq!(crashed.dark, 0, "died before write {n}");
    }
    let ids: Vec<&str> = whole.claims.keys().map(String::as_str).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    assert!(
        ids.iter()
            .all(|name| name.starts_with(&names::claim("reader", "")))
    );
}
