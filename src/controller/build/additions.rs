//! What the spec adds to a finished pod. It runs last and only ever adds: labels, annotations, requirements and tolerations
//! of the operator's own stay, whatever the spec says. It must know no component's purpose.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, ConfigMapVolumeSource, KeyToPath, LocalObjectReference, NodeAffinity, NodeSelector,
    PodAffinity, PodSpec, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use spec::pod::{CaBundle, PodOptions, Proxy, Resources};

use super::super::validate::{Additions, ValidModel};
use super::pod;
use crate::names::{self, Component};

/// Directory and file of the CA bundle in a pod.
const CA_DIRECTORY: &str = "/ca";
const CA_FILE: &str = "ca.crt";

/// Adds what the model's spec gives for pods of this component.
pub(super) fn add(template: &mut PodTemplateSpec, model: &ValidModel, component: Component) {
    let Additions {
        given,
        affinity,
        tolerations,
        spread,
    } = &model.pod;
    // No `..`: a new field fails to compile here instead of silently doing nothing.
    let PodOptions {
        node_selector,
        tolerations: _,
        affinity: _,
        topology_spread_constraints: _,
        priority_class_name,
        runtime_class_name,
        labels,
        annotations,
        image_pull_secrets,
        resources,
        proxy,
        ca_bundle,
    } = given;
    let metadata = template.metadata.get_or_insert_default();
    add_missing(&mut metadata.labels, labels);
    add_missing(&mut metadata.annotations, annotations);
    let pod = template.spec.get_or_insert_default();
    add_missing(&mut pod.node_selector, node_selector);
    if !tolerations.is_empty() {
        pod.tolerations
            .get_or_insert_default()
            .extend(tolerations.iter().cloned());
    }
    pod.priority_class_name.clone_from(priority_class_name);
    if !image_pull_secrets.is_empty() {
        let names = image_pull_secrets
            .iter()
            .map(|secret| LocalObjectReference {
                name: secret.name.clone(),
            });
        pod.image_pull_secrets = Some(names.collect());
    }
    add_node_affinity(pod, affinity.node_affinity.as_ref());
    match component {
        Component::Server => {
            pod.runtime_class_name.clone_from(runtime_class_name);
            add_pod_affinity(pod, affinity);
            add_resources(pod, resources);
            if !spread.is_empty() {
                let own = names::component_labels(&model.name, Component::Server);
                let constraints = spread.iter().cloned().map(|mut constraint| {
                    constraint
                        .label_selector
                        .get_or_insert_with(|| LabelSelector {
                            match_labels: Some(own.clone()),
                            match_expressions: None,
                        });
                    constraint
                });
                pod.topology_spread_constraints = Some(constraints.collect());
            }
        }
        Component::Inspect | Component::Fetch => {
            add_proxy(pod, proxy);
            if let Some(bundle) = ca_bundle {
                add_ca(pod, bundle);
            }
        }
    }
}

fn add_missing(own: &mut Option<BTreeMap<String, String>>, given: &BTreeMap<String, String>) {
    if given.is_empty() {
        return;
    }
    let own = own.get_or_insert_default();
    for (key, value) in given {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// A Node must satisfy what the spec requires and what the operator requires. Terms are alternatives, so that the
/// operator's requirements join each of them.
fn add_node_affinity(pod: &mut PodSpec, given: Option<&NodeAffinity>) {
    let Some(NodeAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    }) = given
    else {
        return;
    };
    let affinity = pod.affinity.get_or_insert_default();
    let own = affinity.node_affinity.get_or_insert_default();
    if let Some(given) = preferred.as_ref().filter(|given| !given.is_empty()) {
        own.preferred_during_scheduling_ignored_during_execution
            .get_or_insert_default()
            .extend(given.iter().cloned());
    }
    if let Some(given) = required {
        let before = own
            .required_during_scheduling_ignored_during_execution
            .take();
        let before = before.map_or_else(Vec::new, |own| own.node_selector_terms);
        let mut terms = Vec::new();
        for term in &given.node_selector_terms {
            if before.is_empty() {
                terms.push(term.clone());
            }
            for own in &before {
                let mut both = term.clone();
                both.match_expressions
                    .get_or_insert_default()
                    .extend(own.match_expressions.iter().flatten().cloned());
                terms.push(both);
            }
        }
        own.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
            node_selector_terms: terms,
        });
    }
}

fn add_pod_affinity(pod: &mut PodSpec, given: &Affinity) {
    if given.pod_affinity.is_none() && given.pod_anti_affinity.is_none() {
        return;
    }
    let own = pod.affinity.get_or_insert_default();
    if let Some(PodAffinity {
        preferred_during_scheduling_ignored_during_execution: preferred,
        required_during_scheduling_ignored_during_execution: required,
    }) = &given.pod_affinity
    {
        let own = own.pod_affinity.get_or_insert_default();
        own.required_during_scheduling_ignored_during_execution
            .get_or_insert_default()
            .extend(required.iter().flatten().cloned());
        own.preferred_during_scheduling_ignored_during_execution
            .get_or_insert_default()
            .extend(preferred.iter().flatten().cloned());
    }
    // The operator asks for no distance of its own.
    own.pod_anti_affinity.clone_from(&given.pod_anti_affinity);
}

/// CPU, and the limit of memory, may be replaced. Whatever else the operator asks for (the planned memory, a GPU) stays.
fn add_resources(pod: &mut PodSpec, given: &Resources) {
    let Resources { requests, limits } = given;
    for container in &mut pod.containers {
        let own = container.resources.get_or_insert_default();
        for (own, given, replaceable) in [
            (&mut own.requests, requests, &["cpu"][..]),
            (&mut own.limits, limits, &["cpu", "memory"][..]),
        ] {
            for (name, amount) in given {
                let own = own.get_or_insert_default();
                if replaceable.contains(&name.as_str()) || !own.contains_key(name) {
                    own.insert(name.clone(), Quantity(amount.clone()));
                }
            }
        }
    }
}

fn add_proxy(pod: &mut PodSpec, proxy: &Proxy) {
    let Proxy {
        http_proxy,
        https_proxy,
        no_proxy,
    } = proxy;
    for (name, value) in [
        ("HTTP_PROXY", http_proxy),
        ("HTTPS_PROXY", https_proxy),
        ("NO_PROXY", no_proxy),
    ] {
        let Some(value) = value else { continue };
        for container in &mut pod.containers {
            let env = container.env.get_or_insert_default();
            env.push(pod::env(name, value));
        }
    }
}

/// Optional, so that the pod starts without the ConfigMap and `kimi` itself can say that the file is missing.
fn add_ca(pod: &mut PodSpec, bundle: &CaBundle) {
    let volume = Volume {
        name: "ca".to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: bundle.config_map_key_ref.name.clone(),
            optional: Some(true),
            items: Some(vec![KeyToPath {
                key: bundle.config_map_key_ref.key.clone(),
                path: CA_FILE.to_owned(),
                mode: None,
            }]),
            default_mode: None,
        }),
        ..Volume::default()
    };
    pod::mount(pod, volume, CA_DIRECTORY, true);
    let file = format!("{CA_DIRECTORY}/{CA_FILE}");
    for container in &mut pod.containers {
        let env = container.env.get_or_insert_default();
        env.push(pod::env("SSL_CERT_FILE", &file));
    }
}
