//! The chart's values and their schema say the same: each value has a place in the schema, nothing else is accepted, and
//! lists that the code owns are the code's. What the templates make of them is checked by `e2e/chart.sh`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use serde_json::Value;

fn read(name: &str) -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/kimi-operator");
    std::fs::read_to_string(chart.join(name)).unwrap()
}

fn walk(path: &str, value: &Value, schema: &Value, faults: &mut Vec<String>) {
    let Some(fields) = value.as_object() else {
        return;
    };
    let open = schema["additionalProperties"].is_object();
    if !open && schema["additionalProperties"] != Value::Bool(false) && schema.get("$ref").is_none()
    {
        faults.push(format!("{path}: accepts what it does not know"));
    }
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match schema["properties"].get(name) {
            Some(schema) => walk(&path, value, schema, faults),
            None if open || schema.get("$ref").is_some() => {}
            None => faults.push(format!("{path}: not in the schema")),
        }
    }
}

#[test]
fn every_value_is_in_the_schema() {
    let values: Value = serde_yaml::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let mut faults = Vec::new();
    walk("", &values, &schema, &mut faults);
    for name in schema["properties"].as_object().unwrap().keys() {
        if name != "global" && values.get(name).is_none() {
            faults.push(format!(
                "{name}: in the schema, without a default in values.yaml"
            ));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_fields_that_can_be_forbidden_are_the_specs() {
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let listed = &schema["properties"]["forbidPodFields"]["items"]["enum"];
    assert_eq!(*listed, serde_json::json!(spec::pod::POD_FIELDS));
}
