//! Lives that turn on where the quant is written and on which volumes stay. What happens in between is the parent's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use serde_json::json;

use super::{LONG, active_quant, cluster, serving};
use crate::controller::plan::{Reason, Step};
use crate::names;
use crate::snapshot::ConfigValue;
use crate::testing::cluster::Cluster;
use crate::testing::{self, MINIMAL};

/// The minimal model with its quant in a ConfigMap.
fn pointing(config: ConfigValue) -> Cluster {
    let mut cluster = cluster(
        "{quantFrom: {configMapKeyRef: {name: llamacpp-config, key: QUANT_TYPE}}, hardware: CPU, \
         source: {huggingFace: {repo: lab/Kimi-Tiny-GGUF}}}",
    );
    cluster.config = config;
    cluster
}

fn text(quant: &str) -> ConfigValue {
    ConfigValue::Text(quant.to_owned())
}

#[test]
fn an_edit_of_the_config_map_is_an_edit_of_the_quant() {
    let mut cluster = pointing(text("Q4_K_M\n"));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.essence(), serving("Q4_K_M").essence());
    cluster.config = text("Q5_0");
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(
        (active_quant(&cluster).as_deref(), cluster.dark),
        (Some("Q5_0"), 0)
    );
}

#[test]
fn a_config_map_that_says_nothing_stops_nothing_and_heals() {
    let mut cluster = pointing(ConfigValue::NoConfigMap);
    let decision = cluster.settle(5);
    assert_eq!(decision.reason, Reason::QuantSourceMissing);
    assert!(cluster.jobs.is_empty() && cluster.claims.is_empty());
    cluster.config = text("Q4_K_M");
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let gone = ConfigValue::NoKey {
        has: vec!["QUANT".to_owned()],
    };
    for (config, reason, words) in [
        (
            gone,
            "QuantSourceMissing",
            "no key QUANT_TYPE; it has QUANT",
        ),
        (text("../Q5"), "InvalidSpec", "has '../Q5' in QUANT_TYPE"),
        (text(""), "InvalidSpec", "must be a name"),
        (
            text("auto"),
            "InvalidSpec",
            "auto chooses from the catalogue",
        ),
    ] {
        cluster.config = config;
        let decision = cluster.settle(5);
        assert_eq!(decision.reason.as_str(), reason, "{}", decision.message);
        assert!(decision.message.contains(words), "{}", decision.message);
        assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
    }
    cluster.config = text("Q4_K_M");
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.dark, 0);
}

/// Quants on volumes, in order.
fn quants(cluster: &Cluster) -> Vec<String> {
    let facts = cluster
        .see()
        .claims
        .into_iter()
        .filter_map(|claim| claim.facts);
    let mut quants: Vec<String> = facts.map(|facts| facts.quant).collect();
    quants.sort();
    quants
}

/// Serves each quant in turn with `storage.keepQuants`.
fn visited(keep: Option<u32>, quants: &[&str]) -> Cluster {
    let mut cluster = serving(quants[0]);
    cluster.edit(|spec| spec.storage.keep_quants = keep);
    for quant in quants {
        cluster.edit(|spec| spec.quant = Some((*quant).to_owned()));
        assert_eq!(cluster.settle(LONG).step, Step::Serving, "{quant}");
    }
    assert_eq!(cluster.dark, 0);
    cluster
}

#[test]
fn as_many_quants_are_kept_as_asked_those_served_last() {
    let tour = ["Q4_K_M", "Q5_0", "Q4_K_M", "Q8_0"];
    assert_eq!(quants(&visited(None, &tour)), ["Q4_K_M", "Q5_0", "Q8_0"]);
    assert_eq!(quants(&visited(Some(2), &tour)), ["Q4_K_M", "Q5_0", "Q8_0"]);
    assert_eq!(quants(&visited(Some(1), &tour)), ["Q4_K_M", "Q8_0"]);
    let mut one = visited(Some(0), &tour);
    assert_eq!(quants(&one), ["Q8_0"]);
    let writes = one.writes;
    one.settle(10);
    assert_eq!(one.writes, writes, "nothing is pruned twice");

    let mut back = visited(Some(1), &tour);
    let fetched = back.fetched;
    back.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
    assert_eq!(back.settle(LONG).step, Step::Serving);
    assert_eq!(back.fetched, fetched, "a kept quant is not fetched again");
    assert_eq!(quants(&back), ["Q4_K_M", "Q8_0"]);
}

#[test]
fn nothing_is_deleted_before_the_new_weights_answer_alone() {
    let mut cluster = serving("Q4_K_M");
    cluster.edit(|spec| {
        spec.storage.keep_quants = Some(0);
        spec.quant = Some("Q5_0".to_owned());
    });
    cluster.broken.insert("Q5_0".to_owned());
    cluster.settle(LONG);
    assert_eq!(
        quants(&cluster),
        ["Q4_K_M", "Q5_0"],
        "weights that cannot serve"
    );
    cluster.edit(|spec| spec.suspend = true);
    cluster.settle(5);
    cluster.edit(|spec| {
        spec.suspend = false;
        spec.serving.replicas = 0;
    });
    cluster.broken.clear();
    assert_eq!(cluster.settle(LONG).reason, Reason::ScaledToZero);
    assert_eq!(quants(&cluster), ["Q4_K_M", "Q5_0"], "weights not proven");
    cluster.edit(|spec| spec.serving.replicas = 1);
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(quants(&cluster), ["Q5_0"]);
}

/// The KimiModel is deleted and made anew: Kubernetes' garbage collector takes what has an owner reference to it.
fn recreated(cluster: &mut Cluster, uid: &str) {
    let old = cluster.model.metadata.uid.replace(uid.to_owned());
    let gone =
        |owners: Option<&Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference>>| {
            owners.is_some_and(|all| all.iter().any(|owner| Some(&owner.uid) == old.as_ref()))
        };
    cluster
        .jobs
        .retain(|_, job| !gone(job.metadata.owner_references.as_ref()));
    cluster
        .deployments
        .retain(|_, d| !gone(d.metadata.owner_references.as_ref()));
    cluster
        .claims
        .retain(|_, claim| !gone(claim.metadata.owner_references.as_ref()));
    cluster.service = None;
    for _ in 0..5 {
        cluster.tick();
    }
}

#[test]
fn a_deleted_model_leaves_its_weights_to_the_next_of_its_name() {
    let mut cluster = visited(None, &["Q4_K_M", "Q5_0"]);
    let fetched = cluster.fetched;
    recreated(&mut cluster, "uid-second");
    cluster.steps.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q5_0"));
    assert_eq!(cluster.fetched, fetched, "adopted, not fetched");
    let before = ["Adopt", "Fetch", "WaitFetch", "MarkVerified", "Start"];
    assert_eq!(cluster.steps[..5], before, "checked before it serves");
    // The other quant is nobody's until somebody asks for it, so keepQuants does not count it.
    cluster.edit(|spec| spec.storage.keep_quants = Some(0));
    cluster.settle(LONG);
    assert_eq!(quants(&cluster), ["Q4_K_M", "Q5_0"]);
    cluster.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.fetched, fetched);
    assert_eq!(quants(&cluster), ["Q4_K_M"]);
}

#[test]
fn deleted_weights_go_by_their_owner_reference_alone() {
    let mut cluster = visited(None, &["Q4_K_M", "Q5_0"]);
    let delete =
        |spec: &mut spec::KimiModelSpec| spec.storage.when_deleted = spec::WhenDeleted::Delete;
    cluster.edit(delete);
    cluster.settle(5);
    let owned = |cluster: &Cluster| {
        let owners = cluster
            .claims
            .values()
            .map(|claim| &claim.metadata.owner_references);
        owners
            .filter(|owners| owners.as_ref().is_some_and(|all| !all.is_empty()))
            .count()
    };
    assert_eq!(
        owned(&cluster),
        2,
        "every claim of ours, not the target's alone"
    );
    let writes = cluster.writes;
    cluster.settle(5);
    assert_eq!(cluster.writes, writes, "written once");
    cluster.edit(|spec| spec.storage.when_deleted = spec::WhenDeleted::Retain);
    cluster.settle(5);
    assert_eq!(owned(&cluster), 0);
    cluster.edit(delete);
    cluster.settle(5);
    recreated(&mut cluster, "uid-second");
    assert!(cluster.claims.is_empty());
}

#[test]
fn claims_of_the_operator_before_are_kept() {
    let mut cluster = visited(None, &["Q4_K_M", "Q5_0"]);
    let owner = cluster
        .deployments
        .values()
        .next()
        .unwrap()
        .metadata
        .owner_references
        .clone();
    for claim in cluster.claims.values_mut() {
        claim.metadata.owner_references = owner.clone();
        let annotations = claim.metadata.annotations.as_mut().unwrap();
        annotations.remove(names::ANNOTATION_OWNER);
        annotations.remove(names::ANNOTATION_SERVED);
    }
    cluster.steps.clear();
    let fetched = cluster.fetched;
    cluster.settle(5);
    assert_eq!(
        cluster.steps,
        ["Serving"],
        "nothing is adopted or checked again"
    );
    recreated(&mut cluster, "uid-second");
    assert_eq!(quants(&cluster), ["Q4_K_M", "Q5_0"]);
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.fetched, fetched);
}

#[test]
fn a_volume_of_a_living_model_is_left_alone() {
    let mut cluster = visited(None, &["Q4_K_M"]);
    recreated(&mut cluster, "uid-second");
    cluster.models = BTreeMap::from([("uid-reader".to_owned(), "writer".to_owned())]);
    let decision = cluster.settle(10);
    assert_eq!(
        (&decision.reason, decision.stalled),
        (&Reason::VolumeTaken, true)
    );
    assert!(
        decision.message.contains("KimiModel writer"),
        "{}",
        decision.message
    );
    cluster.models.clear();
    assert_eq!(
        cluster.settle(LONG).step,
        Step::Serving,
        "heals once the other is gone"
    );
}

#[test]
fn a_job_of_the_deleted_model_proves_nothing() {
    let mut cluster = visited(None, &["Q4_K_M"]);
    let jobs = cluster.jobs.clone();
    recreated(&mut cluster, "uid-second");
    // `kubectl delete --cascade=orphan` leaves them without an owner.
    cluster.jobs = jobs;
    for job in cluster.jobs.values_mut() {
        job.metadata.owner_references = None;
    }
    cluster.steps.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let verified = cluster.steps.iter().position(|step| step == "MarkVerified");
    let again = cluster.steps.iter().position(|step| step == "RetryJob");
    assert!(again.is_some() && again < verified, "{:?}", cluster.steps);
}

const FILLED: &str =
    "{quant: Q4_K_M, hardware: CPU, source: {pvc: {claimName: weights, path: models}}}";

/// The user's claim, which no label of ours is on.
fn filled() -> PersistentVolumeClaim {
    serde_json::from_value(json!({
        "metadata": {"name": "weights", "namespace": "llm", "uid": "uid-weights"},
        "spec": {"resources": {"requests": {"storage": "400G"}}},
        "status": {"phase": "Bound"}
    }))
    .unwrap()
}

fn annotations(cluster: &Cluster) -> BTreeMap<String, String> {
    let given = cluster.given.clone().unwrap();
    given.metadata.annotations.unwrap_or_default()
}

#[test]
fn a_filled_volume_is_checked_then_served_and_never_owned() {
    let mut cluster = cluster(FILLED);
    let decision = cluster.settle(5);
    assert_eq!(
        decision.reason,
        Reason::VolumeMissing,
        "{}",
        decision.message
    );
    assert!(cluster.jobs.is_empty());
    cluster.given = Some(filled());
    cluster.steps.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    let steps = [
        "Inspect",
        "WaitInspect",
        "MarkVerified",
        "Start",
        "WaitReady",
        "Flip",
        "Serving",
    ];
    assert_eq!(cluster.steps, steps);
    assert_eq!(active_quant(&cluster).as_deref(), Some("Q4_K_M"));
    assert!(cluster.claims.is_empty(), "no volume of ours");
    let template = &cluster
        .deployments
        .values()
        .next()
        .unwrap()
        .spec
        .as_ref()
        .unwrap()
        .template;
    let pod = serde_json::to_string(template).unwrap();
    // The model is where the pod that hashed it reported it, below the volume's root.
    assert!(
        pod.contains(r#""claimName":"weights""#) && pod.contains(r#""--model","/models/models""#),
        "{pod}"
    );
    cluster.edit(|spec| {
        spec.storage.keep_quants = Some(0);
        spec.storage.when_deleted = spec::WhenDeleted::Delete;
    });
    cluster.settle(5);
    let given = cluster.given.clone().unwrap();
    assert!(
        given
            .metadata
            .owner_references
            .unwrap_or_default()
            .is_empty()
    );
    assert!(
        cluster.jobs.is_empty(),
        "an ended pod would hold the volume: {:?}",
        cluster.jobs.keys()
    );
    let writes = cluster.writes;
    cluster.settle(5);
    assert_eq!(cluster.writes, writes);
}

#[test]
fn a_filled_volume_is_checked_again_when_the_word_is_taken_back_or_its_model_is_new() {
    let mut cluster = cluster(FILLED);
    cluster.given = Some(filled());
    cluster.settle(LONG);
    let known = annotations(&cluster);
    let mut changed = cluster.given.clone().unwrap();
    changed
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .remove(names::ANNOTATION_VERIFIED);
    cluster.given = Some(changed);
    cluster.steps.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert!(
        cluster.steps.contains(&"WaitInspect".to_owned()),
        "{:?}",
        cluster.steps
    );
    assert_eq!((annotations(&cluster), cluster.dark), (known, 0));

    recreated(&mut cluster, "uid-second");
    cluster.models = BTreeMap::from([("uid-reader".to_owned(), "writer".to_owned())]);
    assert_eq!(cluster.settle(5).reason, Reason::VolumeTaken);
    cluster.models.clear();
    cluster.steps.clear();
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert!(
        cluster.steps.contains(&"WaitInspect".to_owned()),
        "{:?}",
        cluster.steps
    );
    assert_eq!(annotations(&cluster)[names::ANNOTATION_OWNER], "uid-second");
}

#[test]
fn a_branch_moves_only_when_the_spec_does() {
    let mut cluster = visited(None, &["Q4_K_M", "Q5_0"]);
    let (fetched, claims) = (cluster.fetched, cluster.claims.len());
    for facts in cluster.hub.values_mut() {
        facts.commit = "deadbeef".repeat(5);
        facts.digest = "1".repeat(64);
    }
    cluster.jobs.clear();
    cluster.model.status = None;
    let writes = cluster.writes;
    cluster.settle(10);
    assert_eq!(cluster.writes, writes, "served weights stay");
    cluster.edit(|spec| spec.quant = Some("Q4_K_M".to_owned()));
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!(cluster.fetched, fetched, "and kept ones");
    let revision = |spec: &mut spec::KimiModelSpec| {
        let hub = spec.source.as_mut().unwrap().hugging_face.as_mut().unwrap();
        hub.revision = "v2".to_owned();
    };
    cluster.edit(revision);
    assert_eq!(cluster.settle(LONG).step, Step::Serving);
    assert_eq!((cluster.claims.len(), cluster.dark), (claims + 1, 0));
}

/// The spec names the filled volume no more, so that nothing shows it: its server is gone back to all the same.
#[test]
fn an_edit_away_from_a_filled_volume_is_rolled_back() {
    for slots in [2, 1] {
        let mut cluster = cluster(FILLED);
        cluster.given = Some(filled());
        assert_eq!(cluster.settle(LONG).step, Step::Serving);
        cluster.dark = 0;
        if slots == 1 {
            let target = testing::assessed(&cluster.see()).target.unwrap();
            cluster.nodes[0].1 = target.memory_request * 3 / 2;
        }
        let filled = cluster.see().active().unwrap().id.clone();
        cluster.broken.insert("Q5_0".to_owned());
        let hub = testing::model(MINIMAL).spec.0.source;
        cluster.edit(|spec| {
            spec.quant = Some("Q5_0".to_owned());
            spec.source = hub.clone();
        });
        let decision = cluster.settle(2 * LONG);
        assert_eq!(decision.step, Step::RolledBack, "{}", decision.message);
        let active = cluster.see().active().unwrap().clone();
        assert_eq!(
            (active.id.clone(), active.ready_pods()),
            (filled, 1),
            "{slots} slots"
        );
        assert!(slots == 1 || cluster.dark == 0);
    }
}
