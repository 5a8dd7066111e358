//! The CustomResourceDefinition: the committed file is the generated one, it is small and bounded, and its rules accept
//! and refuse what they should. Runs without a cluster; the same documents are applied to a real one in e2e.
#![allow(clippy::unwrap_used, clippy::panic)]

use kimi_operator::crd::{self, KimiModel};
use kube::CustomResourceExt;
use kube_cel::Validator;
use serde_json::{Value, json};

/// The API server's own limit for what `kubectl apply` keeps in an annotation.
const MAX_YAML: usize = 262_144;

fn schema() -> Value {
    let definition = serde_json::to_value(KimiModel::crd()).unwrap();
    definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .unwrap()
        .clone()
}

#[test]
fn the_committed_definition_is_the_generated_one() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/crds/kimimodels.kimioperator.dev.yaml"
    );
    let generated = crd::yaml().unwrap();
    assert!(generated.len() < MAX_YAML, "{} bytes", generated.len());
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == generated,
        "{path} is stale: run UPDATE_GOLDEN=1 cargo test --test crd"
    );
}

/// Every string and list has an upper limit, so that CEL's cost estimate stays small and no object can grow without
/// bounds.
#[test]
fn every_field_is_bounded_and_described() {
    fn walk(path: &str, node: &Value, faults: &mut Vec<String>) {
        let kind = node.get("type").and_then(Value::as_str);
        let bounded = match kind {
            Some("string") => {
                node.get("maxLength").is_some()
                    || node.get("enum").is_some()
                    || node.get("format").is_some()
            }
            Some("array") => node.get("maxItems").is_some(),
            Some("integer" | "boolean" | "object") => true,
            Some("number") => false,
            _ => false,
        };
        if !bounded {
            faults.push(format!("{path}: type {kind:?} has no limit"));
        }
        // The derive makes the status as a whole nullable, as Kubernetes' own clients do.
        if node.get("nullable").is_some() && path != ".status" {
            faults.push(format!("{path}: optional must mean absent, not null"));
        }
        if node.get("anyOf").is_some() || node.get("oneOf").is_some() {
            faults.push(format!("{path}: not structural"));
        }
        if let Some(values) = node.get("additionalProperties") {
            if node.get("maxProperties").is_none() {
                faults.push(format!("{path}: a map without a limit"));
            }
            walk(&format!("{path}{{}}"), values, faults);
        }
        for (name, child) in node
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let child_path = format!("{path}.{name}");
            let in_condition = path.ends_with("conditions[]");
            if child.get("description").is_none() && !in_condition {
                faults.push(format!("{child_path}: no description"));
            }
            walk(&child_path, child, faults);
        }
        if let Some(items) = node.get("items") {
            walk(&format!("{path}[]"), items, faults);
        }
    }
    let mut faults = Vec::new();
    walk("", &schema(), &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn columns_scale_and_names() {
    let definition = serde_json::to_value(KimiModel::crd()).unwrap();
    assert_eq!(
        definition["metadata"]["name"],
        "kimimodels.kimioperator.dev"
    );
    assert_eq!(definition["spec"]["names"]["shortNames"], json!(["km"]));
    let version = &definition["spec"]["versions"][0];
    assert_eq!(
        version["subresources"]["scale"]["specReplicasPath"],
        ".spec.serving.replicas"
    );
    let columns: Vec<&str> = version["additionalPrinterColumns"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|column| column.get("priority").is_none())
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        columns,
        ["Quant", "Hardware", "Progress", "Ready", "Reason", "Age"]
    );
    let conditions =
        &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"];
    assert_eq!(conditions["x-kubernetes-list-type"], "map");
    assert_eq!(conditions["x-kubernetes-list-map-keys"], json!(["type"]));
}

/// A document as the API server validates it: after defaulting.
fn document(name: &str, spec: Value) -> Value {
    let spec: spec::KimiModelSpec = serde_json::from_value(spec).unwrap();
    json!({
        "apiVersion": "kimioperator.dev/v1alpha1",
        "kind": "KimiModel",
        "metadata": {"name": name},
        "spec": serde_json::to_value(spec).unwrap(),
    })
}

#[track_caller]
fn check(name: &str, spec: Value, refused: Option<&str>) {
    let errors = match Validator::new().validate(&schema(), &document(name, spec.clone()), None) {
        Ok(()) => String::new(),
        Err(errors) => errors.to_string(),
    };
    match refused {
        None => assert!(errors.is_empty(), "{name} {spec}: {errors}"),
        Some(words) => assert!(
            errors.contains(words),
            "{name} {spec}: wanted '{words}', got '{errors}'"
        ),
    }
}

#[test]
fn cel_rules() {
    let plain = || json!({"model": "Kimi-K2-Instruct", "quant": "UD-Q2_K_XL", "hardware": "T4"});
    let source = || json!({"huggingFace": {"repo": "a/b"}});
    check("kimi-k2", plain(), None);
    check(&"k".repeat(40), plain(), None);
    check(&"k".repeat(41), plain(), Some("at most 40"));
    check("2kimi", plain(), Some("starting with a letter"));
    check("kimi.k2", plain(), Some("it names a Service"));
    check("kimi-", plain(), Some("it names a Service"));
    check(
        "k",
        json!({"quant": "Q4_K_M", "hardware": "CPU", "source": source()}),
        None,
    );
    check(
        "k",
        json!({"quant": "Q4_K_M", "hardware": "CPU"}),
        Some("give model"),
    );
    check(
        "k",
        json!({"quant": "auto", "hardware": "CPU", "source": source()}),
        Some("quant auto chooses"),
    );
    check(
        "k",
        json!({"quant": "auto", "hardware": "CPU", "model": "Kimi-K2-Instruct"}),
        None,
    );
    let from =
        || json!({"configMapKeyRef": {"name": "kimi-k2-llamacpp-config", "key": "QUANT_TYPE"}});
    check(
        "k",
        json!({"quantFrom": from(), "hardware": "CPU", "source": source()}),
        None,
    );
    check(
        "k",
        json!({"quantFrom": from(), "quant": "Q4_K_M", "hardware": "CPU", "source": source()}),
        Some("give quant, or quantFrom instead of it"),
    );
    check(
        "k",
        json!({"hardware": "CPU", "source": source()}),
        Some("give quant, or quantFrom instead of it"),
    );
    let volume = |quant: &str| json!({"quant": quant, "hardware": "CPU", "model": "Kimi-K2-Instruct", "source": {"pvc": {"claimName": "weights"}}});
    check("k", volume("UD-Q2_K_XL"), None);
    check(
        "k",
        volume("auto"),
        Some("name the quant that the volume holds"),
    );
    let mut both = volume("UD-Q2_K_XL");
    both["source"]["huggingFace"] = json!({"repo": "a/b"});
    check("k", both, Some("give huggingFace, or pvc instead of it"));
    let mut neither = volume("UD-Q2_K_XL");
    neither["source"] = json!({});
    check("k", neither, Some("give huggingFace, or pvc instead of it"));
    let replicas = |count: i32| {
        let mut spec = plain();
        spec["serving"] = json!({"replicas": count});
        spec
    };
    check("k", replicas(0), None);
    check(
        "k",
        replicas(2),
        Some("more than one replica needs storage.accessMode ReadWriteMany"),
    );
    let mut shared = replicas(2);
    shared["storage"] = json!({"accessMode": "ReadWriteMany"});
    check("k", shared.clone(), None);
    shared["storage"] = json!({"accessMode": "ReadOnlyMany"});
    check("k", shared.clone(), Some("give source.pvc"));
    shared["source"] = json!({"pvc": {"claimName": "weights"}});
    check("k", shared, None);
    let rollout = |rollout: Value| {
        let mut spec = plain();
        spec["rollout"] = rollout;
        spec
    };
    let all = json!({"strategy": "Replace", "progressDeadlineSeconds": 60, "maxOutageSeconds": 0,
                     "engineUpdate": "Automatic"});
    check("k", rollout(all), None);
    let pod = |options: Value| {
        let mut spec = plain();
        spec["pod"] = options;
        spec
    };
    check(
        "k",
        pod(json!({"labels": {"team": "llm", "app.kubernetes.io/part-of": "x"}})),
        None,
    );
    for key in spec::pod::OWN_LABELS
        .iter()
        .chain(&["kimioperator.dev/workload"])
    {
        let options = json!({"labels": {*key: "x"}});
        check("k", pod(options), Some("the operator sets"));
    }
    let own = json!({"annotations": {"kimioperator.dev/restart": "x"}});
    check("k", pod(own), Some("the operator sets"));
    let memory = json!({"resources": {"requests": {"memory": "1Gi"}}});
    check("k", pod(memory), Some("spec.memory is its budget"));
}

/// docs/crd.md is the schema as tables, so that the reference cannot lag behind.
#[test]
fn the_field_reference_is_the_schema() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/crd.md");
    let mut text = "# KimiModel fields\n\n\
        Written from the schema by `tests/crd.rs`; update with `UPDATE_GOLDEN=1 cargo test --test crd`.\n\n\
        `kubectl explain kimimodel.spec --recursive` shows the same on a cluster.\n"
        .to_owned();
    let schema = schema();
    for section in ["spec", "status"] {
        let node = &schema["properties"][section];
        text.push_str(&format!(
            "\n## {section}\n\n{}\n",
            words(&node["description"])
        ));
        text.push_str("\n| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
        rows(section, node, &mut text);
        let mut rules = Vec::new();
        collect_rules(section, node, &mut rules);
        if section == "spec" {
            collect_rules(
                "",
                &json!({"x-kubernetes-validations": schema["x-kubernetes-validations"]}),
                &mut rules,
            );
            text.push_str("\nRules across fields:\n\n");
            rules
                .iter()
                .for_each(|rule| text.push_str(&format!("- {rule}\n")));
        }
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(path, &text).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        committed == text,
        "{path} is stale: run UPDATE_GOLDEN=1 cargo test --test crd"
    );
}

fn words(description: &Value) -> String {
    description
        .as_str()
        .unwrap_or_default()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .replace('|', "\\|")
}

fn rows(path: &str, node: &Value, text: &mut String) {
    let required: Vec<&str> = node["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let kind = match child["enum"].as_array() {
            Some(values) => values
                .iter()
                .filter_map(Value::as_str)
                .collect::<Vec<_>>()
                .join(" \\| "),
            None => child["type"].as_str().unwrap_or_default().to_owned(),
        };
        let default = match &child["default"] {
            Value::Null if required.contains(&name.as_str()) => "required".to_owned(),
            Value::Null => String::new(),
            Value::Object(_) => String::new(),
            Value::String(word) => word.clone(),
            other => other.to_string(),
        };
        text.push_str(&format!(
            "| `{path}` | {kind} | {default} | {} |\n",
            words(&child["description"])
        ));
        let in_conditions = path.ends_with(".conditions");
        if !in_conditions {
            rows(&path, child, text);
        }
    }
}

fn collect_rules(path: &str, node: &Value, rules: &mut Vec<String>) {
    for rule in node["x-kubernetes-validations"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let place = if path.is_empty() {
            "metadata.name"
        } else {
            path
        };
        rules.push(format!(
            "`{place}`: {}",
            rule["message"].as_str().unwrap_or_default()
        ));
    }
    for (name, child) in node["properties"].as_object().into_iter().flatten() {
        collect_rules(&format!("{path}.{name}"), child, rules);
    }
}

/// The API server checks rules against the defaults of their own object before anything inside is defaulted.
#[test]
fn defaults_pass_the_rules_beside_them() {
    fn walk(path: &str, node: &Value) {
        if let Some(default) = node.get("default").filter(|default| default.is_object()) {
            let outcome = Validator::new().validate(node, default, None);
            assert!(outcome.is_ok(), "{path}: {}", outcome.unwrap_err());
        }
        for (name, child) in node["properties"].as_object().into_iter().flatten() {
            walk(&format!("{path}.{name}"), child);
        }
    }
    walk("", &schema());
}
