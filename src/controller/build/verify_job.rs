//! The inspect Job of a volume that the user filled: hashes what is there and reports its facts. It mounts the volume
//! read-only, and must know nothing about hubs.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::ContainerPort;

use super::super::validate::ValidModel;
use super::{Settings, inspect_job, pod};
use crate::names::{self, Component};

/// Name of the container.
const CONTAINER: &str = "verify";
/// Hashing keeps within this whatever the file's size, page cache included.
const MEMORY: &str = "256Mi";
/// A disk that fails that often needs a person.
const RETRIES: i32 = 4;

pub(super) fn build(settings: &Settings, model: &ValidModel, inputs: &str) -> Job {
    let memory = || ("memory", MEMORY.to_owned());
    let resources = pod::resources(&[("cpu", "100m".to_owned()), memory()], &[memory()]);
    let volume = model.source.volume.clone().unwrap_or_default();
    let mut container = pod::container(settings, CONTAINER, args(model, &volume), resources);
    container.env = Some(vec![pod::env("QUANT_TYPE", &model.source.quant)]);
    container.ports = Some(vec![ContainerPort {
        name: Some("progress".to_owned()),
        container_port: pod::HEALTH_PORT,
        ..ContainerPort::default()
    }]);
    let mut pod = pod::pod(settings, container, "Never");
    pod::mount_to_read(&mut pod, volume, model);
    pod::place(&mut pod, model, Vec::new());
    let parts = inspect_job::Parts {
        name: names::inspect_job(&model.name, &model.source.id),
        component: Component::Inspect,
        about: (names::LABEL_SOURCE, &model.source.id),
        inputs,
        pod,
        retries: RETRIES,
        // Hundreds of gigabytes take as long as the disk takes.
        deadline_seconds: None,
    };
    inspect_job::job(model, parts)
}

pub(super) fn args(model: &ValidModel, volume: &str) -> Vec<String> {
    let source = &model.source;
    let mut args = vec!["verify".to_owned()];
    let mut flag = |name: &str, value: &str| args.extend([name.to_owned(), value.to_owned()]);
    flag("--dir", pod::MODELS);
    if let Some(path) = &source.path {
        flag("--path", path);
    }
    flag("--quant", &source.quant);
    flag("--name", &format!("volume/{volume}"));
    flag("--listen", &format!("0.0.0.0:{}", pod::HEALTH_PORT));
    flag("--output", pod::TERMINATION_LOG);
    args
}
