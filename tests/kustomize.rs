//! The kustomizations under `manifests/`: every file that they name exists, every patch meets an object that is there, and
//! each model that comes out is one that the current schema accepts. kustomize itself runs in `e2e/chart.sh`; here its
//! two rules that we use (resources, strategic patches of one KimiModel) are followed without it.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::schema::{faults, of_kimi_model};
use serde::Deserialize;
use serde_json::{Value, json};

fn yaml(path: &Path) -> Vec<Value> {
    let text =
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_yaml::Deserializer::from_str(&text)
        .map(|document| {
            Value::deserialize(document)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        })
        .collect()
}

/// Lays a patch over an object: maps join, everything else is replaced.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(object.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

/// The objects of a kustomization.
fn build(directory: &Path) -> Vec<Value> {
    let file = directory.join("kustomization.yaml");
    let kustomization = yaml(&file).remove(0);
    let mut objects = Vec::new();
    for resource in kustomization["resources"].as_array().unwrap() {
        let path = directory.join(resource.as_str().unwrap());
        if path.is_dir() {
            objects.extend(build(&path));
        } else {
            objects.extend(yaml(&path));
        }
    }
    for patch in kustomization["patches"].as_array().into_iter().flatten() {
        let target = &patch["target"];
        let met = |object: &&mut Value| {
            object["kind"] == target["kind"] && object["metadata"]["name"] == target["name"]
        };
        let object = objects.iter_mut().find(met);
        let object = object.unwrap_or_else(|| panic!("{}: nothing meets {target}", file.display()));
        let patch: Value = serde_yaml::from_str(patch["patch"].as_str().unwrap()).unwrap();
        if let Some(steps) = patch.as_array() {
            for step in steps {
                let path = step["path"].as_str().unwrap();
                // `-` appends; anything else must be there.
                let parent = path.rsplit_once('/').unwrap().0;
                let there = if path.ends_with("/-") { parent } else { path };
                assert!(
                    object.pointer(there).is_some(),
                    "{}: no {there}",
                    file.display()
                );
                match step["op"].as_str().unwrap() {
                    "test" => assert_eq!(
                        object.pointer(path),
                        Some(&step["value"]),
                        "{}",
                        file.display()
                    ),
                    "remove" => remove(object, path),
                    _ => {}
                }
            }
        } else if patch.get("$patch").is_none() {
            merge(object, &patch);
        }
    }
    objects
}

fn remove(object: &mut Value, path: &str) {
    let (parent, last) = path.rsplit_once('/').unwrap();
    match object.pointer_mut(parent).unwrap() {
        Value::Array(items) => drop(items.remove(last.parse().unwrap())),
        Value::Object(map) => drop(map.remove(last)),
        other => panic!("{path} in {other}"),
    }
}

fn directories(path: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("manifests")
        .join(path);
    let mut found: Vec<PathBuf> = fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    found.sort();
    found
}

#[test]
fn every_model_is_one_that_the_schema_accepts() {
    let schema = of_kimi_model();
    let mut seen = Vec::new();
    for directory in directories("models") {
        let name = directory
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        let mut models: Vec<Value> = build(&directory);
        models.retain(|object| object["kind"] == "KimiModel");
        assert_eq!(models.len(), 1, "{name}");
        let faults = faults(&schema, &models[0]);
        assert!(faults.is_empty(), "{name}:\n{}", faults.join("\n"));
        let text = serde_yaml::to_string(&models[0]).unwrap();
        spec::load(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            !seen.contains(&models[0]["spec"]) || name == "base",
            "{name} changes nothing"
        );
        seen.push(models[0]["spec"].clone());
    }
    assert!(seen.len() >= 8);
}

#[test]
fn every_overlay_of_the_operator_meets_its_objects() {
    for directory in directories("overlays") {
        let objects = build(&directory);
        let deployment = objects
            .iter()
            .find(|object| object["kind"] == "Deployment")
            .unwrap();
        let args = deployment
            .pointer("/spec/template/spec/containers/0/args")
            .unwrap();
        assert_eq!(args[0], json!("run"), "{}", directory.display());
        let user = args
            .as_array()
            .unwrap()
            .iter()
            .any(|arg| arg.as_str().unwrap().starts_with("--run-as-user"));
        assert_eq!(
            user,
            !directory.ends_with("openshift"),
            "{}",
            directory.display()
        );
    }
}
