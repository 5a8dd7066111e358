//! The inspect Job, where the weights come from a hub: reads a repository's list and headers and reports facts in its termination message. No volume, no
//! service-account token. It must know nothing about plans.

use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement,
    PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::validate::ValidModel;
use super::{Error, Settings, additions, pod, verify_job};
use crate::names::{self, Component};

/// Name of the container.
pub const CONTAINER: &str = "inspect";
/// Reading headers takes seconds; a hub that stalls for minutes is unreachable.
const DEADLINE_SECONDS: i64 = 300;
/// Retries within the deadline.
const RETRIES: i32 = 4;
/// Exit code of `kimi` for what a retry cannot help.
const PERMANENT_EXIT: i32 = 2;

/// Hash of what the Job depends on besides the image.
///
/// # Errors
/// When the arguments cannot be written as JSON, which is a bug.
pub fn inputs(model: &ValidModel) -> Result<String, Error> {
    let words = (args(model), &model.source.token, &model.pod.given);
    super::json("inspect arguments", &words).map(|text| names::short_hash(&text))
}

/// The Job of the model's source.
#[must_use]
pub fn build(settings: &Settings, model: &ValidModel, inputs: &str) -> Job {
    if model.source.volume.is_some() {
        return verify_job::build(settings, model, inputs);
    }
    let resources = pod::resources(
        &[("cpu", "50m".to_owned()), ("memory", "64Mi".to_owned())],
        &[("memory", "256Mi".to_owned())],
    );
    let mut container = pod::container(settings, CONTAINER, args(model), resources);
    container.env = Some(vec![pod::env("QUANT_TYPE", &model.source.quant)]);
    let mut pod = pod::pod(settings, container, "Never");
    if let Some(token) = &model.source.token {
        pod::mount_secret(&mut pod, pod::hub_token(token));
    }
    let parts = Parts {
        name: names::inspect_job(&model.name, &model.source.id),
        component: Component::Inspect,
        about: (names::LABEL_SOURCE, &model.source.id),
        inputs,
        pod,
        retries: RETRIES,
        deadline_seconds: Some(DEADLINE_SECONDS),
    };
    job(model, parts)
}

fn args(model: &ValidModel) -> Vec<String> {
    if let Some(volume) = &model.source.volume {
        return verify_job::args(model, volume);
    }
    let mut args = vec!["inspect-remote".to_owned()];
    args.extend(source_args(model, &model.source.revision));
    args.extend(["--output".to_owned(), pod::TERMINATION_LOG.to_owned()]);
    args
}

/// The arguments that name a source, at a branch or at a commit.
pub(super) fn source_args(model: &ValidModel, revision: &str) -> Vec<String> {
    let source = &model.source;
    let mut args = Vec::new();
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    flag("--repo", &source.repo);
    flag("--revision", revision);
    flag("--quant", &source.quant);
    if let Some(path) = &source.path {
        flag("--path", path);
    }
    if let Some(endpoint) = &source.endpoint {
        flag("--endpoint", endpoint);
    }
    if let Some(token) = &source.token {
        flag("--token-file", &pod::hub_token(token).path());
    }
    args
}

/// What differs between the two kinds of Job.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) name: String,
    pub(super) component: Component,
    /// Label and id of what the Job is about.
    pub(super) about: (&'static str, &'a str),
    pub(super) inputs: &'a str,
    pub(super) pod: PodSpec,
    pub(super) retries: i32,
    pub(super) deadline_seconds: Option<i64>,
}

/// A Job around a pod: failures that a retry cannot help end it at once, evictions do not count.
pub(super) fn job(model: &ValidModel, parts: Parts<'_>) -> Job {
    let Parts {
        name,
        component,
        about: (label, id),
        inputs,
        pod,
        retries,
        deadline_seconds,
    } = parts;
    let mut metadata = super::metadata(model, name, component);
    metadata
        .labels
        .get_or_insert_default()
        .insert(label.to_owned(), id.to_owned());
    metadata
        .annotations
        .get_or_insert_default()
        .insert(names::ANNOTATION_INPUTS.to_owned(), inputs.to_owned());
    let container = pod
        .containers
        .first()
        .map(|container| container.name.clone());
    let mut template = PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: metadata.labels.clone(),
            ..ObjectMeta::default()
        }),
        spec: Some(pod),
    };
    additions::add(&mut template, model, component);
    Job {
        spec: Some(JobSpec {
            backoff_limit: Some(retries),
            active_deadline_seconds: deadline_seconds,
            suspend: Some(false),
            pod_failure_policy: Some(PodFailurePolicy {
                rules: vec![
                    PodFailurePolicyRule {
                        action: "FailJob".to_owned(),
                        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
                            container_name: container,
                            operator: "In".to_owned(),
                            values: vec![PERMANENT_EXIT],
                        }),
                        on_pod_conditions: None,
                    },
                    PodFailurePolicyRule {
                        action: "Ignore".to_owned(),
                        on_exit_codes: None,
                        on_pod_conditions: Some(vec![PodFailurePolicyOnPodConditionsPattern {
                            type_: "DisruptionTarget".to_owned(),
                            status: "True".to_owned(),
                        }]),
                    },
                ],
            }),
            template,
            ..JobSpec::default()
        }),
        metadata,
        status: None,
    }
}
