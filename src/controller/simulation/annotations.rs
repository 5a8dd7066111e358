//! The two annotations by which a user asks for work without an edit: a restart of the server, and the weights once more.

use super::{LONG, active_quant, serving};
use crate::controller::plan::Step;
use crate::names;
use crate::testing::cluster::Cluster;

fn annotate(cluster: &mut Cluster, key: &str, value: &str) {
    let annotations = cluster.model.metadata.annotations.get_or_insert_default();
    annotations.insert(key.to_owned(), value.to_owned());
}

#[test]
fn a_restart_is_staged_like_an_edit_and_fetches_nothing() {
    let mut cluster = serving("Q4_K_M");
    let before = cluster.see().active().unwrap().id.clone();
    let fetched = cluster.fetched;
    annotate(
        &mut cluster,
        names::ANNOTATION_RESTART,
        "2026-01-01 at \"noon\"",
    );
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_ne!(cluster.see().active().unwrap().id, before, "another pod");
    assert_eq!(
        (cluster.fetched, cluster.dark, cluster.deployments.len()),
        (fetched, 0, 1)
    );
    let writes = cluster.writes;
    cluster.tick();
    cluster.reconcile();
    assert_eq!(cluster.writes, writes, "once");
}

#[test]
fn a_refetch_verifies_once_while_the_server_answers() {
    let mut cluster = serving("Q4_K_M");
    let server = cluster.see().active().unwrap().id.clone();
    annotate(&mut cluster, names::ANNOTATION_REFETCH, "again");
    let decision = cluster.settle(LONG);
    assert_eq!(decision.step, Step::Serving, "{}", decision.message);
    assert!(
        cluster.steps.contains(&"WaitFetch".to_owned()),
        "{:?}",
        cluster.steps
    );
    assert!(
        cluster.steps.contains(&"MarkVerified".to_owned()),
        "{:?}",
        cluster.steps
    );
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
    assert_eq!(
        (cluster.see().active().unwrap().id.clone(), cluster.dark),
        (server, 0),
        "the server is left alone"
    );
    let job = cluster.jobs.values().find(|job| {
        let name = job.metadata.name.as_deref();
        name.is_some_and(|name| name.contains("fetch"))
    });
    let args = job
        .unwrap()
        .spec
        .as_ref()
        .unwrap()
        .template
        .spec
        .as_ref()
        .unwrap()
        .containers[0]
        .args
        .clone();
    assert!(args.unwrap().contains(&"--verify".to_owned()));
    let writes = cluster.writes;
    for _ in 0..5 {
        cluster.tick();
        cluster.reconcile();
    }
    assert_eq!(cluster.writes, writes, "once");
}
