//! What stands around the servers: a budget that keeps evictions from taking all of them at once, and, where asked for,
//! rules on who may talk to the pods. It must know nothing about which servers are active.

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::validate::ValidModel;
use crate::names::{self, Component};

/// The budget. With one server it would only keep its Node from being drained, so there is none.
#[must_use]
pub fn budget(model: &ValidModel) -> Option<PodDisruptionBudget> {
    (model.replicas > 1).then(|| PodDisruptionBudget {
        metadata: super::metadata(model, model.name.clone(), Component::Server),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(pods(model, &[Component::Server])),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    })
}

/// The policies. Servers dial nobody and answer the peers; Jobs dial the hub, which no policy can name, and answer on
/// their progress port alone. Probes and scrapers come from anywhere.
#[must_use]
pub fn policies(model: &ValidModel) -> Vec<NetworkPolicy> {
    let Some(peers) = &model.peers else {
        return Vec::new();
    };
    let own = NetworkPolicyPeer {
        pod_selector: Some(LabelSelector::default()),
        ..NetworkPolicyPeer::default()
    };
    let api = NetworkPolicyIngressRule {
        from: Some([own].into_iter().chain(peers.iter().cloned()).collect()),
        ports: Some(vec![port("http")]),
    };
    let open = |name: &str| NetworkPolicyIngressRule {
        from: None,
        ports: Some(vec![port(name)]),
    };
    let servers = NetworkPolicySpec {
        pod_selector: Some(pods(model, &[Component::Server])),
        policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
        ingress: Some(vec![api, open("health")]),
        egress: None,
    };
    let jobs = NetworkPolicySpec {
        pod_selector: Some(pods(model, &[Component::Inspect, Component::Fetch])),
        policy_types: Some(vec!["Ingress".to_owned()]),
        ingress: Some(vec![open("progress")]),
        egress: None,
    };
    [
        (
            names::server_policy(&model.name),
            Component::Server,
            servers,
        ),
        (names::job_policy(&model.name), Component::Fetch, jobs),
    ]
    .into_iter()
    .map(|(name, component, spec)| NetworkPolicy {
        metadata: super::metadata(model, name, component),
        spec: Some(spec),
    })
    .collect()
}

fn pods(model: &ValidModel, components: &[Component]) -> LabelSelector {
    let words = components
        .iter()
        .map(|component| component.as_str().to_owned());
    LabelSelector {
        match_labels: Some(BTreeMap::from([(
            names::LABEL_INSTANCE.to_owned(),
            model.name.clone(),
        )])),
        match_expressions: Some(vec![LabelSelectorRequirement {
            key: names::LABEL_COMPONENT.to_owned(),
            operator: "In".to_owned(),
            values: Some(words.collect()),
        }]),
    }
}

fn port(name: &str) -> NetworkPolicyPort {
    NetworkPolicyPort {
        port: Some(IntOrString::String(name.to_owned())),
        protocol: Some("TCP".to_owned()),
        end_port: None,
    }
}
