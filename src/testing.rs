//! What unit tests share: a KimiModel from minimal YAML, facts, Nodes, and a small cluster that acts on what is built.
//! The instance is called `reader`, unlike the product, so that swapped names show. It must hold no assertion about
//! the code under test.

pub(crate) mod cluster;
mod objects;

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use serde_json::json;
use sizing::Facts;

use crate::controller::Settings;
use crate::controller::assess::{Assessment, assess};
use crate::crd::{KimiModel, Spec};
use crate::snapshot::{Claim, Holder, ModelMeta, Node, ServerPod, Snapshot, Workload};

/// The least that serves the small model on the CPU.
pub(crate) const MINIMAL: &str =
    "{quant: Q4_K_M, hardware: CPU, source: {huggingFace: {repo: lab/Kimi-Tiny-GGUF}}}";

pub(crate) fn settings() -> Settings {
    Settings {
        worker_image: "registry.example/kimi-worker:1".to_owned(),
        image_pull_policy: "IfNotPresent".to_owned(),
        run_as_user: None,
        fs_group: None,
        forbidden_pod_fields: Vec::new(),
    }
}

/// Start of every test's clock.
pub(crate) fn epoch() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// The KimiModel `reader` in namespace `llm` with a spec in YAML.
pub(crate) fn model(spec: &str) -> KimiModel {
    KimiModel {
        metadata: ObjectMeta {
            name: Some("reader".to_owned()),
            namespace: Some("llm".to_owned()),
            uid: Some("uid-reader".to_owned()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Spec(serde_yaml::from_str(spec).unwrap()),
        status: None,
    }
}

/// A Node with this much allocatable memory and, where given, a GPU product label.
pub(crate) fn node(name: &str, memory: u64, product: Option<&str>) -> Node {
    let mut labels =
        BTreeMap::from([("kubernetes.io/hostname".to_owned(), format!("{name}.host"))]);
    if let Some(product) = product {
        labels.insert(
            sizing::hardware::PRODUCT_LABEL.to_owned(),
            product.to_owned(),
        );
    }
    Node {
        name: name.to_owned(),
        labels,
        memory,
        gpus: u64::from(product.is_some()),
        usable: true,
    }
}

/// An empty cluster of one CPU Node, seen for a spec in YAML.
pub(crate) fn snapshot(spec: &str) -> Snapshot {
    Snapshot {
        model: ModelMeta {
            name: "reader".to_owned(),
            namespace: "llm".to_owned(),
            uid: "uid-reader".to_owned(),
            generation: 1,
            created: None,
            deleting: false,
            restart: None,
            refetch: None,
        },
        spec: serde_yaml::from_str(spec).unwrap(),
        quant_from: None,
        nodes: vec![node("n1", 32 << 30, None)],
        jobs: Vec::new(),
        claims: Vec::new(),
        workloads: Vec::new(),
        service: None,
        guards: Vec::new(),
        now: epoch(),
    }
}

/// A bound claim of `reader` with verified weights.
pub(crate) fn claim(facts: Facts) -> Claim {
    let artifact = crate::names::artifact_id(&facts);
    Claim {
        name: crate::names::claim("reader", &artifact),
        uid: format!("uid-{artifact}"),
        holder: Holder::Us,
        given: false,
        marked: true,
        goes_along: false,
        mounted: false,
        served: None,
        artifact,
        source: String::new(),
        verified: Some(crate::names::verified_value(&facts)),
        facts: Some(facts),
        choice: None,
        refetched: None,
        node: None,
        requested: 1_000_000_000,
        storage_class: None,
        access_modes: vec!["ReadWriteOnce".to_owned()],
        refused: None,
        bound: true,
        deleting: false,
        created: epoch(),
    }
}

pub(crate) fn assessed(snapshot: &Snapshot) -> Assessment {
    assess(&settings(), snapshot).unwrap()
}

/// Facts of one quant of the small model.
pub(crate) fn facts(quant: &str) -> Facts {
    let digest = crate::names::short_hash(quant).repeat(7);
    let facts = json!({
        "repo": "lab/Kimi-Tiny-GGUF", "commit": "c0ffee00".repeat(5), "path": quant, "quant": quant,
        "shards": 3, "bytes": 9_000_000, "digest": &digest[..64],
        "architecture": "deepseek2", "name": "Kimi Tiny", "contextLength": 4096,
        "hyper": {"layers": 4, "denseLayers": 1, "hidden": 256, "heads": 4, "kvLoraRank": 256, "ropeDim": 32,
                  "experts": 16, "expertsUsed": 4, "sharedExperts": 1, "vocab": 4096},
        "classes": [
            {"class": "Embedding", "dtype": "Q4_K", "count": 1, "bytes": 1_000_000},
            {"class": "Attention", "dtype": "Q4_K", "count": 20, "bytes": 2_000_000},
            {"class": "Expert", "dtype": "Q4_K", "count": 9, "bytes": 4_800_000}
        ],
        "expertSizes": [{"bytes": 100_000, "count": 48}]
    });
    serde_json::from_value(facts).unwrap()
}

/// A pod of a server on Node `n1`.
pub(crate) fn pod(ready: bool) -> ServerPod {
    ServerPod {
        name: "pod".to_owned(),
        node: Some("n1".to_owned()),
        ready,
        terminating: false,
        blocked: None,
        scheduled: Some(epoch()),
        failure: None,
        permanent: false,
        restarts: 0,
        started: None,
        ended: None,
        ready_since: None,
        usage: None,
    }
}

/// A server with one pod.
pub(crate) fn workload(id: &str, quant: &str, ready: bool) -> Workload {
    Workload {
        name: crate::names::deployment("reader", id),
        uid: format!("uid-{id}"),
        id: id.to_owned(),
        artifact: crate::names::artifact_id(&facts(quant)),
        quant: quant.to_owned(),
        inputs: None,
        shown: Vec::new(),
        gpu: false,
        on_given_volume: false,
        replicas: 1,
        stopped_at: None,
        dark_at: None,
        emptied_at: None,
        deleting: false,
        created: epoch(),
        pods: vec![pod(ready)],
        refused: None,
        ready_endpoints: usize::from(ready),
    }
}
