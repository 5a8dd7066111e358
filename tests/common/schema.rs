//! A document against the CRD as the API server looks at it: defaults, the structural schema, then the CEL rules. Only the
//! keywords that our schema uses are known, and an unknown one is an error, so that nothing passes unchecked.

use kimi_operator::crd::KimiModel;
use kube::CustomResourceExt;
use kube_cel::Validator;
use serde_json::{Map, Value};

/// The schema of the served version.
pub(crate) fn of_kimi_model() -> Value {
    let definition = serde_json::to_value(KimiModel::crd()).unwrap();
    definition
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .unwrap()
        .clone()
}

/// What the API server would complain about; empty when it would store the document.
pub(crate) fn faults(schema: &Value, document: &Value) -> Vec<String> {
    let mut document = document.clone();
    default(schema, &mut document);
    let mut faults = Vec::new();
    for (name, node) in schema["properties"].as_object().unwrap() {
        if let Some(value) = document.get(name) {
            walk(name, node, value, &mut faults);
        }
    }
    if let Err(errors) = Validator::new().validate(schema, &document, None) {
        faults.push(errors.to_string());
    }
    faults
}

/// Fills in defaults and drops explicit nulls, from the outside in.
fn default(schema: &Value, value: &mut Value) {
    if let (Some(items), Some(list)) = (schema.get("items"), value.as_array_mut()) {
        list.iter_mut().for_each(|item| default(items, item));
    }
    let (Some(properties), Some(object)) = (
        schema.get("properties").and_then(Value::as_object),
        value.as_object_mut(),
    ) else {
        return;
    };
    for (name, node) in properties {
        if object.get(name).is_some_and(Value::is_null) {
            object.remove(name);
        }
        if let Some(value) = node.get("default")
            && !object.contains_key(name)
        {
            object.insert(name.clone(), value.clone());
        }
        if let Some(child) = object.get_mut(name) {
            default(node, child);
        }
    }
}

fn walk(path: &str, schema: &Value, value: &Value, faults: &mut Vec<String>) {
    let schema = schema.as_object().unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let length = |value: &Value| match value {
        Value::String(text) => text.chars().count(),
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    let limit = |limit: &Value| usize::try_from(limit.as_u64().unwrap()).unwrap();
    for (keyword, wanted) in schema {
        let holds = match keyword.as_str() {
            "type" => is_a(wanted.as_str().unwrap(), value, schema),
            "enum" => wanted.as_array().unwrap().contains(value),
            "pattern" => value.as_str().is_none_or(|text| {
                let pattern = regex_lite::Regex::new(wanted.as_str().unwrap()).unwrap();
                pattern.is_match(text)
            }),
            "minLength" | "minItems" | "minProperties" => length(value) >= limit(wanted),
            "maxLength" | "maxItems" | "maxProperties" => length(value) <= limit(wanted),
            "minimum" => number(value) >= number(wanted),
            "maximum" => number(value) <= number(wanted),
            "required" => wanted
                .as_array()
                .unwrap()
                .iter()
                .all(|name| value.get(name.as_str().unwrap()).is_some()),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    walk(&format!("{path}[{index}]"), wanted, item, faults);
                }
                true
            }
            "properties" => {
                fields(path, wanted, schema, value, faults);
                true
            }
            "additionalProperties" => {
                for (key, child) in value.as_object().into_iter().flatten() {
                    walk(&format!("{path}.{key}"), wanted, child, faults);
                }
                true
            }
            "default"
            | "description"
            | "format"
            | "nullable"
            | "title"
            | "x-kubernetes-validations"
            | "x-kubernetes-int-or-string" => true,
            word if word.starts_with("x-kubernetes-list-") || word == "x-kubernetes-map-type" => {
                true
            }
            unknown => panic!("{path}: this test does not know {unknown}"),
        };
        if !holds {
            faults.push(format!("{path}: {value} breaks {keyword} {wanted}"));
        }
    }
}

fn fields(
    path: &str,
    wanted: &Value,
    schema: &Map<String, Value>,
    value: &Value,
    faults: &mut Vec<String>,
) {
    for (name, child) in value.as_object().into_iter().flatten() {
        match wanted.get(name) {
            Some(node) => walk(&format!("{path}.{name}"), node, child, faults),
            None if schema.contains_key("additionalProperties") => {}
            None => faults.push(format!("{path}.{name}: unknown field")),
        }
    }
}

fn is_a(kind: &str, value: &Value, schema: &Map<String, Value>) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        other => panic!("type {other} in {schema:?}"),
    }
}
