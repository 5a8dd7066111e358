//! The server: one Deployment per (artifact, pod template), so that an edit starts a new one beside the old one instead
//! of changing it. The template must not depend on Nodes, on status or on time.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Container, ContainerPort, HTTPGetAction, Lifecycle, LifecycleHandler, PodTemplateSpec, Probe,
    SleepAction,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::Value;
use sizing::Facts;
use spec::{AccessMode, KimiModelSpec, Objective, PodOptions, Rollout, Serving, Storage};

use super::super::assess::{Memory, Target};
use super::super::validate::ValidModel;
use super::{Error, Settings, additions, pod};
use crate::names::{self, Component};

/// Name of the container.
pub const CONTAINER: &str = "server";
/// Port of the OpenAI API in the pod; the Service has its own.
const HTTP_PORT: i32 = 8080;
/// Manifest that the fetch Job leaves beside the weights.
const MANIFEST: &str = "/models/kimi-manifest.json";
/// How long a stream may go on after its server was told to stop.
const DRAIN_SECONDS: i64 = 3600;
/// How long endpoints are given to forget a pod before it is told to stop.
const PRE_STOP_SECONDS: i64 = 5;

/// The pod template without the workload label, which is its own hash.
#[must_use]
pub fn template(
    settings: &Settings,
    model: &ValidModel,
    facts: &Facts,
    context: u64,
    memory: Memory,
    gpu: bool,
) -> PodTemplateSpec {
    let artifact = names::artifact_id(facts);
    let mut requests = vec![
        ("cpu", "250m".to_owned()),
        ("memory", memory.request.to_string()),
    ];
    let mut limits = vec![("memory", memory.limit.to_string())];
    if gpu {
        // An extended resource is requested whole, with a limit that equals the request.
        requests.push((names::GPU_RESOURCE, "1".to_owned()));
        limits.push((names::GPU_RESOURCE, "1".to_owned()));
    }
    let mut container = pod::container(
        settings,
        CONTAINER,
        args(model, facts, context),
        pod::resources(&requests, &limits),
    );
    container.env = Some(vec![
        pod::env("QUANT_TYPE", &model.source.quant),
        pod::env("KIMI_ARTIFACT", &artifact),
    ]);
    let port = |name: &str, port| ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        ..ContainerPort::default()
    };
    container.ports = Some(vec![
        port("http", HTTP_PORT),
        port("health", pod::HEALTH_PORT),
    ]);
    // The process answers /livez on its own thread from its first second, and 503 only after 120 s without progress
    // in loading or serving: no deadline ends a load that advances.
    container.startup_probe = Some(probe("/livez", 2, 60));
    container.liveness_probe = Some(probe("/livez", 10, 3));
    // /readyz is 200 after the self-test in the engine and until SIGTERM.
    container.readiness_probe = Some(probe("/readyz", 2, 3));
    container.lifecycle = Some(Lifecycle {
        pre_stop: Some(LifecycleHandler {
            sleep: Some(SleepAction {
                seconds: PRE_STOP_SECONDS,
            }),
            ..LifecycleHandler::default()
        }),
        ..Lifecycle::default()
    });
    let mut pod = pod::pod(settings, container, "Always");
    pod.termination_grace_period_seconds = Some(DRAIN_SECONDS + 30);
    pod::mount_to_read(&mut pod, model.claim(&artifact), model);
    if let Some(secret) = &model.api_key {
        pod::mount_secret(&mut pod, pod::api_key(secret));
    }
    pod::place(&mut pod, model, Vec::new());
    if gpu {
        pod::require_product(&mut pod, model);
    }
    if model.access_mode == AccessMode::ReadWriteOnce {
        pod::keep_together(&mut pod, &model.name, &artifact);
    }
    let mut labels = names::component_labels(&model.name, Component::Server);
    labels.insert(names::LABEL_ARTIFACT.to_owned(), artifact);
    let restart = model.restart.as_ref().map(|value| {
        let annotation = (names::ANNOTATION_RESTART.to_owned(), value.clone());
        [annotation].into()
    });
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(labels),
            annotations: restart,
            ..ObjectMeta::default()
        }),
        spec: Some(pod),
    };
    additions::add(&mut template, model, Component::Server);
    template
}

/// Whether a server's container requests a GPU.
#[must_use]
pub fn requests_gpu(container: &Container) -> bool {
    let limits = container
        .resources
        .as_ref()
        .and_then(|resources| resources.limits.as_ref());
    limits.is_some_and(|limits| limits.contains_key(names::GPU_RESOURCE))
}

/// The workload id of a template, and the template with that id as a label.
///
/// # Errors
/// When the template cannot be written as JSON, which is a bug.
pub fn identify(
    mut template: PodTemplateSpec,
    artifact: &str,
) -> Result<(String, PodTemplateSpec), Error> {
    let id = names::short_hash(&format!(
        "{artifact}\n{}\n",
        super::json("pod template", &template)?
    ));
    let metadata = template.metadata.get_or_insert_default();
    metadata
        .labels
        .get_or_insert_default()
        .insert(names::LABEL_WORKLOAD.to_owned(), id.clone());
    Ok((id, template))
}

/// Flags whose values come from the spec and from nothing else, in every version of the operator.
const SHOWN: [&str; 3] = ["--alias", "--ctx-size", "--api-key-file"];

/// What a server's arguments show of the spec.
#[must_use]
pub fn shown(args: &[String]) -> Vec<String> {
    let flags = args.iter().zip(args.iter().skip(1));
    flags
        .filter(|(flag, _)| SHOWN.contains(&flag.as_str()))
        .map(|(flag, value)| format!("{flag} {value}"))
        .collect()
}

/// Hash of the words of a spec, and of the restart asked for, that reach the server's pod beside its artifact. Words at their default are left out, so
/// that a field which a later version adds changes no hash; a field counts unless it is reset here.
///
/// # Errors
/// When the spec cannot be written as JSON, which is a bug.
pub fn inputs(spec: &KimiModelSpec, restart: Option<&str>) -> Result<String, Error> {
    let blank = KimiModelSpec {
        model: None,
        quant: None,
        quant_from: None,
        hardware: spec.hardware,
        objective: Objective::default(),
        memory: None,
        source: None,
        storage: Storage::default(),
        serving: Serving::default(),
        rollout: Rollout::default(),
        pod: PodOptions::default(),
        suspend: false,
    };
    let words = KimiModelSpec {
        quant: None,
        quant_from: None,
        objective: blank.objective,
        // Which bytes is the artifact's to say, unless they are on a volume of the user's.
        source: spec.source.clone().filter(|source| source.pvc.is_some()),
        storage: Storage {
            access_mode: spec.storage.access_mode,
            ..Storage::default()
        },
        rollout: Rollout::default(),
        suspend: false,
        pod: PodOptions {
            // Of the pods that read from the hub only.
            proxy: blank.pod.proxy.clone(),
            ca_bundle: None,
            ..spec.pod.clone()
        },
        serving: Serving {
            replicas: blank.serving.replicas,
            port: blank.serving.port,
            ..spec.serving.clone()
        },
        ..spec.clone()
    };
    let value = |spec: &KimiModelSpec| {
        serde_json::to_value(spec).map_err(|source| Error {
            what: "spec",
            source,
        })
    };
    let mut lines = BTreeSet::from([format!("hardware={}", spec.hardware)]);
    leaves("", &value(&words)?, Some(&value(&blank)?), &mut lines);
    lines.extend(restart.map(|asked| format!("restart={asked}")));
    let lines: Vec<String> = lines.into_iter().collect();
    Ok(names::short_hash(&lines.join("\n")))
}

/// Every leaf of `value` that differs from `default`, with its path.
fn leaves(path: &str, value: &Value, default: Option<&Value>, lines: &mut BTreeSet<String>) {
    match value {
        _ if Some(value) == default => {}
        Value::Object(fields) => {
            for (key, value) in fields {
                let default = default.and_then(|default| default.get(key));
                leaves(&format!("{path}.{key}"), value, default, lines);
            }
        }
        leaf => {
            lines.insert(format!("{path}={leaf}"));
        }
    }
}

/// The target's Deployment around a rendered template.
#[must_use]
pub fn build(model: &ValidModel, target: &Target, template: &PodTemplateSpec) -> Deployment {
    let mut metadata = super::metadata(
        model,
        names::deployment(&model.name, &target.workload),
        Component::Server,
    );
    let labels = metadata.labels.get_or_insert_default();
    labels.insert(names::LABEL_ARTIFACT.to_owned(), target.artifact.clone());
    labels.insert(names::LABEL_WORKLOAD.to_owned(), target.workload.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(
        names::ANNOTATION_QUANT.to_owned(),
        target.facts.quant.clone(),
    );
    annotations.insert(names::ANNOTATION_INPUTS.to_owned(), target.inputs.clone());
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: Some(model.replicas),
            revision_history_limit: Some(0),
            // The planner keeps this deadline; here it is only said to people and kstatus.
            progress_deadline_seconds: Some(
                i32::try_from(target.deadline_seconds).unwrap_or(i32::MAX),
            ),
            // The template of a Deployment never changes; Recreate says so to whoever edits it by hand.
            strategy: Some(DeploymentStrategy {
                type_: Some("Recreate".to_owned()),
                rolling_update: None,
            }),
            selector: LabelSelector {
                match_labels: Some(super::service::selector(&model.name, &target.workload)),
                match_expressions: None,
            },
            template: template.clone(),
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn args(model: &ValidModel, facts: &Facts, context: u64) -> Vec<String> {
    let mut args = vec!["serve".to_owned()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    match &model.source.volume {
        // What was checked there, and no manifest of ours beside it.
        Some(_) => flag("--model", &format!("{}/{}", pod::MODELS, facts.path)),
        None => flag("--manifest", MANIFEST),
    }
    flag("--alias", &model.name);
    if let Some(row) = model.catalogue.filter(|row| row.name != model.name) {
        flag("--alias", row.name);
    }
    flag("--host", "0.0.0.0");
    flag("--port", &HTTP_PORT.to_string());
    flag("--health-port", &pod::HEALTH_PORT.to_string());
    flag("--ctx-size", &context.to_string());
    if let Some(secret) = &model.api_key {
        flag("--api-key-file", &pod::api_key(secret).path());
    }
    flag("--drain-timeout", &DRAIN_SECONDS.to_string());
    flag("--output", pod::TERMINATION_LOG);
    args
}

fn probe(path: &str, period_seconds: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("health".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}
