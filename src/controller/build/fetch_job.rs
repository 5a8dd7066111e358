//! The fetch Job: fills the artifact's volume, where the server will fit later. It must know nothing about serving but
//! the Nodes and the memory that serving needs.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ContainerPort;
use sizing::Facts;

use super::super::assess::Target;
use super::super::validate::ValidModel;
use super::{Error, Settings, inspect_job, pod};
use crate::names::{self, Component};

/// Name of the container, as in the quantization guide's commands.
pub const CONTAINER: &str = "model-downloader";
/// The fetcher keeps within this whatever the file's size, page cache included.
const MEMORY: &str = "256Mi";
/// Retries with the Job's own back-off, which ends at six minutes: about half an hour without a hub.
const RETRIES: i32 = 10;
/// A node affinity of more values than this helps nobody; the largest Nodes come first.
const MAX_HOSTNAMES: usize = 64;

/// Hash of what the Job depends on besides image and Nodes.
///
/// # Errors
/// When the arguments cannot be written as JSON, which is a bug.
pub fn inputs(model: &ValidModel, artifact: &str, facts: &Facts) -> Result<String, Error> {
    let source = (&model.source.token, &model.pod.given, &model.refetch);
    let words = (args(model, facts), source, artifact);
    super::json("fetch arguments", &words).map(|text| names::short_hash(&text))
}

/// The Job of the target's artifact. With a StorageClass that waits for its first consumer, this pod's Node decides
/// where the volume is, so it is placed where the server's memory fits.
#[must_use]
pub fn build(settings: &Settings, model: &ValidModel, target: &Target) -> Job {
    let memory = || ("memory", MEMORY.to_owned());
    let resources = pod::resources(&[("cpu", "100m".to_owned()), memory()], &[memory()]);
    let mut container = pod::container(settings, CONTAINER, args(model, &target.facts), resources);
    container.env = Some(vec![
        pod::env("QUANT_TYPE", &target.facts.quant),
        pod::env("KIMI_ARTIFACT", &target.artifact),
    ]);
    container.ports = Some(vec![ContainerPort {
        name: Some("progress".to_owned()),
        container_port: pod::HEALTH_PORT,
        ..ContainerPort::default()
    }]);
    let mut pod = pod::pod(settings, container, "Never");
    pod::mount_to_fill(&mut pod, names::claim(&model.name, &target.artifact));
    if let Some(token) = &model.source.token {
        pod::mount_secret(&mut pod, pod::hub_token(token));
    }
    let fitting = model
        .nodes
        .matching
        .iter()
        .filter(|node| node.memory >= target.memory_request);
    let mut hostnames: Vec<String> = fitting
        .take(MAX_HOSTNAMES)
        .map(|node| node.hostname.clone())
        .collect();
    hostnames.sort();
    pod::place(&mut pod, model, hostnames);
    let parts = inspect_job::Parts {
        name: names::fetch_job(&model.name, &target.artifact),
        component: Component::Fetch,
        about: (names::LABEL_ARTIFACT, &target.artifact),
        inputs: &target.fetch_inputs,
        pod,
        retries: RETRIES,
        deadline_seconds: None,
    };
    inspect_job::job(model, parts)
}

fn args(model: &ValidModel, facts: &Facts) -> Vec<String> {
    let mut args = vec!["fetch".to_owned()];
    args.extend(inspect_job::source_args(model, &facts.commit));
    for (flag, value) in [
        ("--digest", facts.digest.as_str()),
        ("--dest", pod::MODELS),
        ("--listen", &format!("0.0.0.0:{}", pod::HEALTH_PORT)),
        ("--output", pod::TERMINATION_LOG),
    ] {
        args.extend([flag.to_owned(), value.to_owned()]);
    }
    if model.refetch.is_some() {
        args.push("--verify".to_owned());
    }
    args
}
