//! What every pod of a model has in common: the restricted security settings, `/tmp`, Secrets as optional files. It must
//! know no component.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, KeyToPath, NodeAffinity, NodeSelector,
    NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource, PodAffinity,
    PodAffinityTerm, PodSecurityContext, PodSpec, PreferredSchedulingTerm, ResourceRequirements,
    SeccompProfile, SecretVolumeSource, SecurityContext, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use sizing::hardware::PRODUCT_LABEL;
use spec::{AccessMode, SecretKeyRef};

use super::super::validate::{HOSTNAME_LABEL, ValidModel};
use super::Settings;
use crate::names;

/// Where weights are mounted in every pod.
pub(super) const MODELS: &str = "/models";
/// Where a container's last words go; the operator reads them from the pod's status.
pub(super) const TERMINATION_LOG: &str = "/dev/termination-log";
/// Port of probes and of the fetch pod's progress.
pub(super) const HEALTH_PORT: i32 = 8081;

/// One file of a Secret: the volume's name, which is also its directory under `/secrets`, and the file in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SecretFile<'a> {
    pub(super) volume: &'static str,
    pub(super) file: &'static str,
    pub(super) secret: &'a SecretKeyRef,
}

impl SecretFile<'_> {
    pub(super) fn path(&self) -> String {
        format!("/secrets/{}/{}", self.volume, self.file)
    }
}

pub(super) fn hub_token(secret: &SecretKeyRef) -> SecretFile<'_> {
    SecretFile {
        volume: "hub",
        file: "token",
        secret,
    }
}

pub(super) fn api_key(secret: &SecretKeyRef) -> SecretFile<'_> {
    SecretFile {
        volume: "api-key",
        file: "key",
        secret,
    }
}

/// A pod around one container that has no volumes yet.
pub(super) fn pod(settings: &Settings, container: Container, restart_policy: &str) -> PodSpec {
    let mut pod = PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        restart_policy: Some(restart_policy.to_owned()),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: settings.run_as_user,
            fs_group: settings.fs_group,
            // Hundreds of gigabytes must not be walked at every start.
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container],
        ..PodSpec::default()
    };
    let scratch = Volume {
        name: "tmp".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    mount(&mut pod, scratch, "/tmp", false);
    pod
}

/// A container of the worker image, whose entry point is `kimi`, with nothing a restricted namespace refuses.
pub(super) fn container(
    settings: &Settings,
    name: &str,
    args: Vec<String>,
    resources: ResourceRequirements,
) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(settings.worker_image.clone()),
        image_pull_policy: Some(settings.image_pull_policy.clone()),
        args: Some(args),
        resources: Some(resources),
        termination_message_path: Some(TERMINATION_LOG.to_owned()),
        termination_message_policy: Some("File".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            read_only_root_filesystem: Some(true),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

pub(super) fn mount(pod: &mut PodSpec, volume: Volume, path: &str, read_only: bool) {
    for container in &mut pod.containers {
        container
            .volume_mounts
            .get_or_insert_default()
            .push(VolumeMount {
                name: volume.name.clone(),
                mount_path: path.to_owned(),
                read_only: read_only.then_some(true),
                ..VolumeMount::default()
            });
    }
    pod.volumes.get_or_insert_default().push(volume);
}

/// The volume of the weights, to be filled.
pub(super) fn mount_to_fill(pod: &mut PodSpec, claim: String) {
    mount(pod, weights(claim, None), MODELS, false);
}

/// The volume of the weights, to be read. One that is ReadOnlyMany must be attached to the Node read-only as well:
/// drivers refuse it otherwise.
pub(super) fn mount_to_read(pod: &mut PodSpec, claim: String, model: &ValidModel) {
    let attached = (model.access_mode == AccessMode::ReadOnlyMany).then_some(true);
    mount(pod, weights(claim, attached), MODELS, true);
}

fn weights(claim_name: String, read_only: Option<bool>) -> Volume {
    Volume {
        name: "models".to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name,
            read_only,
        }),
        ..Volume::default()
    }
}

/// Optional, so that the pod starts without the Secret and `kimi` itself can say that it is missing.
pub(super) fn mount_secret(pod: &mut PodSpec, file: SecretFile<'_>) {
    let volume = Volume {
        name: file.volume.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(file.secret.name.clone()),
            optional: Some(true),
            items: Some(vec![KeyToPath {
                key: file.secret.key.clone(),
                path: file.file.to_owned(),
                mode: None,
            }]),
            default_mode: None,
        }),
        ..Volume::default()
    };
    mount(pod, volume, &format!("/secrets/{}", file.volume), true);
}

pub(super) fn env(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

/// Requests and limits in (resource, quantity) pairs.
pub(super) fn resources(
    requests: &[(&str, String)],
    limits: &[(&str, String)],
) -> ResourceRequirements {
    let map = |pairs: &[(&str, String)]| -> Option<BTreeMap<String, Quantity>> {
        (!pairs.is_empty()).then(|| {
            pairs
                .iter()
                .map(|(name, amount)| ((*name).to_owned(), Quantity(amount.clone())))
                .collect()
        })
    };
    ResourceRequirements {
        requests: map(requests),
        limits: map(limits),
        claims: None,
    }
}

/// Places a pod on these hostnames, where given, and rather on Nodes of the model's GPU, whose place the CPU takes.
pub(super) fn place(pod: &mut PodSpec, model: &ValidModel, hostnames: Vec<String>) {
    let mut affinity = NodeAffinity::default();
    if !model.hardware.is_cpu() {
        let products = model
            .hardware
            .node_labels
            .iter()
            .map(|label| (*label).to_owned())
            .collect();
        affinity.preferred_during_scheduling_ignored_during_execution =
            Some(vec![PreferredSchedulingTerm {
                weight: 100,
                preference: one_of(PRODUCT_LABEL, products),
            }]);
        // Exists: GPU Nodes carry this taint with values of the platform's choosing.
        pod.tolerations = Some(vec![Toleration {
            key: Some("nvidia.com/gpu".to_owned()),
            operator: Some("Exists".to_owned()),
            ..Toleration::default()
        }]);
    }
    if !hostnames.is_empty() {
        affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
            node_selector_terms: vec![one_of(HOSTNAME_LABEL, hostnames)],
        });
    }
    if affinity != NodeAffinity::default() {
        pod.affinity.get_or_insert_default().node_affinity = Some(affinity);
    }
}

/// Only Nodes of the model's GPU: a pod that holds a GPU must hold the one that was planned for.
pub(super) fn require_product(pod: &mut PodSpec, model: &ValidModel) {
    let products = model.hardware.node_labels.iter();
    let affinity = pod.affinity.get_or_insert_default();
    let affinity = affinity.node_affinity.get_or_insert_default();
    affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
        node_selector_terms: vec![one_of(
            PRODUCT_LABEL,
            products.map(|label| (*label).to_owned()).collect(),
        )],
    });
}

fn one_of(key: &str, values: Vec<String>) -> NodeSelectorTerm {
    NodeSelectorTerm {
        match_expressions: Some(vec![NodeSelectorRequirement {
            key: key.to_owned(),
            operator: "In".to_owned(),
            values: Some(values),
        }]),
        match_fields: None,
    }
}

/// Pods of one artifact share its volume, which one Node mounts: a second pod elsewhere would wait for it for ever
/// without the scheduler saying so. The first pod matches itself, which the scheduler allows.
pub(super) fn keep_together(pod: &mut PodSpec, instance: &str, artifact: &str) {
    let labels = [
        (names::LABEL_INSTANCE, instance),
        (names::LABEL_ARTIFACT, artifact),
    ];
    let term = PodAffinityTerm {
        topology_key: HOSTNAME_LABEL.to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into(),
            ),
            match_expressions: None,
        }),
        ..PodAffinityTerm::default()
    };
    pod.affinity.get_or_insert_default().pod_affinity = Some(PodAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![term]),
        preferred_during_scheduling_ignored_during_execution: None,
    });
}
