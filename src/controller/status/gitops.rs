//! What GitOps tools make of a KimiModel, from the status that the operator itself gives in each phase: Argo CD by the Lua
//! that we ship, run by a Lua of Argo's version, and kstatus (Flux, cli-utils) by its published rules. The two must agree
//! at every moment, and neither may call a model healthy that `kubectl wait --for=condition=Ready` would wait for.

use std::collections::BTreeSet;

use mlua::{Lua, LuaSerdeExt, Table};
use serde_json::{Value, json};

use super::tests::show;
use crate::crd::KimiModelStatus;
use crate::snapshot::Snapshot;
use crate::testing::cluster::Cluster;
use crate::testing::{self, MINIMAL};

const HEALTH: &str = include_str!("../../../charts/kimi-operator/files/argocd-health.lua");

/// The object as a tool reads it.
fn object(snapshot: &Snapshot, status: Option<&KimiModelStatus>) -> Value {
    let mut object = json!({
        "apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel",
        "metadata": {"name": snapshot.model.name, "generation": snapshot.model.generation},
    });
    if let Some(status) = status {
        object["status"] = json!(status);
    }
    object
}

/// Argo CD's word, and the message that it shows.
fn argo(object: &Value) -> (String, String) {
    let lua = Lua::new();
    lua.globals()
        .set("obj", lua.to_value(object).unwrap())
        .unwrap();
    let health: Table = lua.load(HEALTH).eval().unwrap();
    (
        health.get("status").unwrap(),
        health.get("message").unwrap(),
    )
}

fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    let conditions = object
        .pointer("/status/conditions")
        .and_then(Value::as_array);
    conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == kind)
        .map_or("", |condition| condition["status"].as_str().unwrap())
}

/// kstatus' word: deletion, generation, its two conditions, then `Ready`.
fn kstatus(object: &Value) -> &'static str {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return "Terminating";
    }
    let observed = object.pointer("/status/observedGeneration");
    if observed.is_some_and(|observed| *observed != object["metadata"]["generation"]) {
        return "InProgress";
    }
    if condition(object, "Reconciling") == "True" {
        return "InProgress";
    }
    if condition(object, "Stalled") == "True" {
        return "Failed";
    }
    match condition(object, "Ready") {
        "True" => "Current",
        // No status at all: kstatus takes an object of a kind it does not know for done.
        "" => "Current",
        _ => "InProgress",
    }
}

#[track_caller]
fn agree(object: &Value) -> String {
    let ((argo, message), kstatus, ready) =
        (argo(object), kstatus(object), condition(object, "Ready"));
    let told = format!("Argo {argo} ({message}), kstatus {kstatus}, Ready {ready}: {object}");
    assert!(!message.is_empty(), "{told}");
    let holds = match argo.as_str() {
        "Healthy" => kstatus == "Current" && ready == "True",
        "Progressing" => kstatus == "InProgress",
        "Degraded" => kstatus == "Failed" && condition(object, "Stalled") == "True",
        "Suspended" => kstatus == "InProgress" && ready == "False",
        _ => false,
    };
    assert!(holds, "{told}");
    argo
}

/// Looks at every moment of so many ticks; the words in the order in which they came.
fn watch(cluster: &mut Cluster, ticks: u32) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut last: Option<KimiModelStatus> = None;
    for _ in 0..ticks {
        let snapshot = cluster.see();
        let status = show(&snapshot, last.as_ref());
        let word = agree(&object(&snapshot, Some(&status)));
        if words.last() != Some(&word) {
            words.push(word);
        }
        last = Some(status);
        cluster.reconcile();
        cluster.tick();
    }
    words
}

#[test]
fn argo_and_kstatus_agree_with_ready_in_every_phase() {
    let mut seen = BTreeSet::new();
    let mut follow = |what: &str, cluster: &mut Cluster, ticks, wanted: [&str; 2]| {
        let words = watch(cluster, ticks);
        // A moment may pass before what was there before is gone.
        assert!(
            words.ends_with(&wanted.map(str::to_owned)),
            "{what}: {words:?}"
        );
        seen.extend(words);
    };
    let mut cluster = Cluster::new(testing::model(MINIMAL), &["Q4_K_M", "Q5_0", "Q8_0"]);
    let arrives = ["Progressing", "Healthy"];
    follow("first deploy", &mut cluster, 60, arrives);
    cluster.edit(|spec| spec.quant = Some("Q5_0".to_owned()));
    follow("staged edit", &mut cluster, 60, arrives);
    cluster.edit(|spec| spec.quant = Some("Q9_9".to_owned()));
    follow(
        "no such quant",
        &mut cluster,
        30,
        ["Progressing", "Degraded"],
    );
    cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
    follow("corrected", &mut cluster, 60, arrives);
    cluster.edit(|spec| spec.suspend = true);
    follow("suspended", &mut cluster, 20, ["Healthy", "Suspended"]);
    cluster.edit(|spec| spec.suspend = false);
    follow("resumed", &mut cluster, 60, arrives);

    let misfit = "{model: Kimi-K2-Instruct, quant: UD-Q4_K_XL, hardware: T4}";
    let mut cluster = Cluster::new(testing::model(misfit), &[]);
    assert_eq!(watch(&mut cluster, 5), ["Degraded"]);
    assert_eq!(seen.len(), 4, "every word of Argo's was seen: {seen:?}");
}

#[test]
fn what_was_not_looked_at_yet_is_progressing() {
    let mut cluster = Cluster::new(testing::model(MINIMAL), &["Q4_K_M", "Q8_0"]);
    assert_eq!(argo(&object(&cluster.see(), None)).0, "Progressing");
    cluster.settle(60);
    let before = show(&cluster.see(), None);
    cluster.edit(|spec| spec.quant = Some("Q8_0".to_owned()));
    let unseen = object(&cluster.see(), Some(&before));
    assert_eq!(
        agree(&unseen),
        "Progressing",
        "the status is the former spec's"
    );
}
