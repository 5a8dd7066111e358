//! A campaign over the CRD: every field of the schema is set, changed, set wrong and reverted on a model that serves,
//! in the cluster in memory. Each end state must be the one that a fresh apply of the same spec leads to, and each
//! change must show somewhere. A field without a row in [`fields`] fails the campaign.

mod fields;

use std::collections::{BTreeMap, BTreeSet};

use kube::CustomResourceExt;
use serde_json::{Map, Value, json};
use spec::KimiModelSpec;

use self::fields::{FIELDS, Field};
use super::assess::assess;
use super::plan::{Decision, Step};
use crate::crd::KimiModel;
use crate::names;
use crate::snapshot::ConfigValue;
use crate::testing::{self, cluster::Cluster};

/// Ticks within which everything but a long pause ends.
const LONG: u32 = 60;
/// Ticks that an edit stands before it is taken back.
const BRIEF: u32 = 3;

/// What the campaign counted, and what went wrong.
#[derive(Default)]
struct Tally {
    operations: usize,
    stuck: Vec<String>,
    ignored: Vec<String>,
}

/// Paths of the schema's leaves below `spec`: what has no properties of its own.
fn leaves(schema: &Value, path: &str, found: &mut BTreeSet<String>) {
    match schema["properties"].as_object() {
        Some(properties) => {
            for (name, inner) in properties {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(inner, &path, found);
            }
        }
        None => {
            found.insert(path.to_owned());
        }
    }
}

fn schema() -> Value {
    let crd = serde_json::to_value(KimiModel::crd()).unwrap();
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"].clone()
}

/// The spec with one field set; `null` takes it out.
fn with(spec: &Value, path: &str, value: &Value) -> Value {
    let mut spec = spec.clone();
    let mut at = &mut spec;
    let mut words = path.split('.').peekable();
    while let Some(word) = words.next() {
        if words.peek().is_none() {
            if value.is_null() {
                at.as_object_mut().unwrap().remove(word);
            } else {
                at[word] = value.clone();
            }
            return spec;
        }
        if at[word].is_null() {
            at[word] = json!({});
        }
        at = &mut at[word];
    }
    spec
}

/// A cluster with a fresh model of this spec in it, and every quant that a row asks for at the hub.
fn fresh(spec: &Value) -> Cluster {
    let hub = [
        "Q4_K_M",
        "Q5_0",
        "Q8_0",
        "UD-TQ1_0",
        "UD-IQ1_S",
        "UD-Q2_K_XL",
        "UD-IQ3_XXS",
        "UD-Q4_K_XL",
        "UD-Q5_K_XL",
    ];
    let mut cluster = Cluster::new(testing::model(&spec.to_string()), &hub);
    // Room for any two catalogue quants side by side.
    cluster.nodes[0].1 = 4 << 40;
    cluster.config = ConfigValue::Text("Q5_0".to_owned());
    fill(&mut cluster);
    cluster
}

/// The volume that the spec points to, if it points to one, is there.
fn fill(cluster: &mut Cluster) {
    let source = cluster.model.spec.0.source.as_ref();
    let Some(volume) = source.and_then(|source| source.pvc.as_ref()) else {
        return;
    };
    let given = cluster.given.as_ref();
    if given.and_then(|claim| claim.metadata.name.as_ref()) == Some(&volume.claim_name) {
        return;
    }
    let claim = json!({
        "metadata": {"name": volume.claim_name, "namespace": "llm", "uid": format!("uid-{}", volume.claim_name)},
        "spec": {"resources": {"requests": {"storage": "400G"}}},
        "status": {"phase": "Bound"},
    });
    cluster.given = Some(serde_json::from_value(claim).unwrap());
}

/// Applies a whole spec; false where a spec like it cannot even be read.
fn apply(cluster: &mut Cluster, spec: &Value) -> bool {
    let Ok(parsed) = serde_json::from_value(spec.clone()) else {
        return false;
    };
    cluster.edit(|spec| *spec = parsed);
    fill(cluster);
    true
}

/// Everything that a user could look at, without identities, times and what is only kept: finished Jobs and the
/// volumes of other artifacts.
fn picture(cluster: &Cluster, decision: &Decision, kept: Kept) -> Value {
    let seen = cluster.see();
    let assessment = assess(&cluster.settings, &seen).unwrap();
    let artifact = assessment
        .target
        .as_ref()
        .map(|target| target.artifact.as_str());
    let of_target = |labels: &Option<BTreeMap<String, String>>| {
        let label = labels
            .as_ref()
            .and_then(|all| all.get(names::LABEL_ARTIFACT));
        label.map(String::as_str) == artifact
    };
    let claims = cluster
        .claims
        .values()
        .filter(|claim| of_target(&claim.metadata.labels));
    let claims = match kept {
        Kept::Volume => claims.map(|claim| plain(&json!(claim))).collect(),
        Kept::VolumeName => claims
            .map(|claim| json!(claim.metadata.name))
            .collect::<Vec<_>>(),
    };
    json!({
        "step": format!("{:?}", decision.step),
        "reason": decision.reason.as_str(),
        "message": decision.message,
        "stalled": decision.stalled,
        "plan": assessment.plan.map(|plan| format!("{plan:?}")),
        "claims": claims,
        "deployments": cluster.deployments.values().map(|object| plain(&json!(object))).collect::<Vec<_>>(),
        "service": cluster.service.as_ref().map(|object| plain(&json!(object))),
        "ready": seen.active().map(|active| (&active.id, active.ready_endpoints)),
    })
}

/// How closely the volume of the target is compared.
#[derive(Clone, Copy)]
enum Kept {
    Volume,
    /// For what is read when a volume is made: an edit changes none that is there.
    VolumeName,
}

/// The object without what a fresh one has anew.
fn plain(value: &Value) -> Value {
    const ANEW: [&str; 6] = [
        "uid",
        "creationTimestamp",
        "status",
        names::ANNOTATION_SERVED,
        names::ANNOTATION_SWITCH,
        names::ANNOTATION_HISTORY,
    ];
    let Value::Object(map) = value else {
        return value.clone();
    };
    let kept = map
        .iter()
        .filter(|(key, _)| !ANEW.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), plain(value)));
    let absent = |value: &Value| *value == json!({}) || *value == json!([]);
    Value::Object(
        kept.filter(|(_, value)| !absent(value))
            .collect::<Map<_, _>>(),
    )
}

/// The spec applied to an empty cluster: the picture, and with it every Job, where a change must show.
fn fresh_pictures(spec: &Value, kept: Kept) -> (Value, Value) {
    let mut cluster = fresh(spec);
    let decision = cluster.settle(LONG);
    let jobs: Vec<Value> = cluster
        .jobs
        .values()
        .map(|job| plain(&json!(job)))
        .collect();
    let whole = json!([picture(&cluster, &decision, Kept::Volume), jobs]);
    (picture(&cluster, &decision, kept), whole)
}

impl Tally {
    /// Where a fresh apply makes nothing, an edit keeps what was there before: only the words must be the same then.
    fn same(&mut self, what: &str, wanted: &Value, got: &Value) {
        self.operations += 1;
        let keeps = wanted["stalled"] == true || wanted["step"] == "Suspended";
        let differing = wanted.as_object().unwrap().iter().filter(|(key, value)| {
            let words = ["step", "reason", "message", "stalled"].contains(&key.as_str());
            got[key.as_str()] != **value && (words || !keeps)
        });
        let differing: Vec<_> = differing.collect();
        if !differing.is_empty() {
            let words = differing.iter().map(|(key, value)| {
                format!("  {key}: wanted {value}\n  got {}", got[key.as_str()])
            });
            self.stuck
                .push(format!("{what}\n{}", words.collect::<Vec<_>>().join("\n")));
        }
    }

    fn field(&mut self, field: &Field) {
        let base: Value = serde_json::from_str(field.base.spec()).unwrap();
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let kept = if field.read_once {
            Kept::VolumeName
        } else {
            Kept::Volume
        };
        let (wanted, whole) = fresh_pictures(&base, kept);
        assert_eq!(
            wanted["step"], "Serving",
            "{}: the base must serve: {wanted}",
            field.path
        );
        let mut cluster = fresh(&base);
        cluster.settle(LONG);

        for (word, text) in [("set", field.set), ("changed", field.change)] {
            let spec = with(&base, field.path, &value(text));
            let changes = serde_json::from_value::<KimiModelSpec>(spec.clone()).ok()
                != serde_json::from_value(base.clone()).ok();
            let (fresh, changed) = fresh_pictures(&spec, kept);
            if changes && field.no_effect.is_none() && changed == whole {
                self.ignored
                    .push(format!("{} {word} to {text}", field.path));
            }
            assert!(
                apply(&mut cluster, &spec),
                "{} = {text} cannot be read",
                field.path
            );
            let decision = cluster.settle(LONG);
            let got = picture(&cluster, &decision, kept);
            self.same(&format!("{} {word} to {text}", field.path), &fresh, &got);
        }
        for text in field.wrong {
            // Wrong for good, and wrong for a moment: the mending must not wait for what cannot come.
            for ticks in [LONG, BRIEF] {
                self.operations += 1;
                if apply(&mut cluster, &with(&base, field.path, &value(text))) {
                    let decision = cluster.settle(ticks);
                    if ticks == LONG && decision.step == Step::Serving {
                        self.ignored
                            .push(format!("{} set wrong to {text}", field.path));
                    }
                }
                assert!(apply(&mut cluster, &base));
                let decision = cluster.settle(LONG);
                let got = picture(&cluster, &decision, kept);
                self.same(
                    &format!("{} reverted from {text} after {ticks} ticks", field.path),
                    &wanted,
                    &got,
                );
            }
        }
        assert!(apply(&mut cluster, &base));
        let decision = cluster.settle(LONG);
        self.same(
            &format!("{} reverted", field.path),
            &wanted,
            &picture(&cluster, &decision, kept),
        );
    }
}

#[test]
fn every_field_can_be_set_changed_set_wrong_and_reverted() {
    let mut paths = BTreeSet::new();
    leaves(&schema(), "", &mut paths);
    let rows: BTreeSet<String> = FIELDS.iter().map(|field| field.path.to_owned()).collect();
    assert_eq!(
        rows, paths,
        "each field of the schema has one row in campaign/fields.rs"
    );

    let mut tally = Tally::default();
    for field in FIELDS {
        tally.field(field);
    }
    let excused = FIELDS
        .iter()
        .filter(|field| field.no_effect.is_some())
        .count();
    eprintln!(
        "campaign: {} fields, {} operations, {} stuck, {} ignored ({excused} excused)",
        FIELDS.len(),
        tally.operations,
        tally.stuck.len(),
        tally.ignored.len()
    );
    assert!(tally.stuck.is_empty(), "{}", tally.stuck.join("\n"));
    assert!(tally.ignored.is_empty(), "{:#?}", tally.ignored);
}
