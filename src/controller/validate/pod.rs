//! The spec's pod options in Kubernetes' own types, refused where the administrator forbids them, and which Nodes they
//! leave. It must know no pod of ours.

use k8s_openapi::api::core::v1::{Affinity, Toleration, TopologySpreadConstraint};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use spec::PodOptions;
use spec::pod::{NodeOperator, NodeRequirement};

use super::{Refusal, invalid};
use crate::controller::plan::Reason;
use crate::snapshot::Node;

/// Pod options, checked and allowed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Additions {
    /// What needs no translation.
    pub given: PodOptions,
    pub affinity: Affinity,
    pub tolerations: Vec<Toleration>,
    pub spread: Vec<TopologySpreadConstraint>,
}

impl Additions {
    /// True if the options keep pods off some Nodes.
    #[must_use]
    pub fn constrains_nodes(&self) -> bool {
        !self.given.node_selector.is_empty() || self.affinity.node_affinity.is_some()
    }
}

/// Translates the options, which have passed the spec's own checks.
pub(super) fn additions(given: &PodOptions, forbidden: &[String]) -> Result<Additions, Refusal> {
    let refused: Vec<&str> = given
        .given()
        .filter(|field| forbidden.iter().any(|name| name == field))
        .collect();
    if !refused.is_empty() {
        return Err(Refusal {
            reason: Reason::PodFieldForbidden,
            message: format!(
                "spec.pod.{}: this cluster's operator forbids {} (its flag --forbid-pod-fields); remove {}, or ask its \
                 administrator",
                refused.join(", spec.pod."),
                if refused.len() == 1 { "it" } else { "them" },
                if refused.len() == 1 { "it" } else { "them" },
            ),
        });
    }
    let in_field =
        |field: &str, error: serde_json::Error| invalid(format!("spec.pod.{field}: {error}"));
    Ok(Additions {
        affinity: translate(&given.affinity.clone().unwrap_or_default())
            .map_err(|error| in_field("affinity", error))?,
        tolerations: translate(&given.tolerations)
            .map_err(|error| in_field("tolerations", error))?,
        spread: translate(&given.topology_spread_constraints)
            .map_err(|error| in_field("topologySpreadConstraints", error))?,
        given: given.clone(),
    })
}

/// Peers of a NetworkPolicy.
pub(super) fn peers(policy: &spec::NetworkPolicy) -> Result<Vec<NetworkPolicyPeer>, Refusal> {
    translate(&policy.from).map_err(|error| invalid(format!("spec.serving.networkPolicy: {error}")))
}

/// The same JSON in another type. What our own schema lets through, Kubernetes' types can hold.
fn translate<K: DeserializeOwned>(given: &impl Serialize) -> Result<K, serde_json::Error> {
    serde_json::to_value(given).and_then(serde_json::from_value)
}

/// Whether the scheduler could put a pod with these options on a Node, as far as the Node's labels decide it.
pub(super) fn admits(options: &PodOptions, node: &Node) -> bool {
    let selected = options
        .node_selector
        .iter()
        .all(|(key, value)| node.labels.get(key) == Some(value));
    let required = options
        .affinity
        .as_ref()
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|nodes| {
            nodes
                .required_during_scheduling_ignored_during_execution
                .as_ref()
        });
    selected
        && required.is_none_or(|required| {
            required
                .node_selector_terms
                .iter()
                .any(|term| term.match_expressions.iter().all(|each| holds(each, node)))
        })
}

fn holds(requirement: &NodeRequirement, node: &Node) -> bool {
    let NodeRequirement {
        key,
        operator,
        values,
    } = requirement;
    let value = node.labels.get(key);
    let number = |text: &String| text.parse::<i64>().ok();
    let beyond = |compare: fn(&i64, &i64) -> bool| {
        let (value, limit) = (value.and_then(number), values.first().and_then(number));
        value
            .zip(limit)
            .is_some_and(|(value, limit)| compare(&value, &limit))
    };
    match operator {
        NodeOperator::In => value.is_some_and(|value| values.contains(value)),
        NodeOperator::NotIn => value.is_none_or(|value| !values.contains(value)),
        NodeOperator::Exists => value.is_some(),
        NodeOperator::DoesNotExist => value.is_none(),
        NodeOperator::Gt => beyond(i64::gt),
        NodeOperator::Lt => beyond(i64::lt),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn options(yaml: &str) -> PodOptions {
        serde_yaml::from_str(yaml).unwrap()
    }

    #[test]
    fn nodes_that_the_options_leave() {
        let mut node = crate::testing::node("n", 1, None);
        let labels = [("zone", "a"), ("cores", "64")];
        node.labels
            .extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let term = |requirement: &str| {
            format!(
                "{{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: \
                 [{{matchExpressions: [{{key: none, operator: Exists}}]}}, {{matchExpressions: [{requirement}]}}]}}}}}}}}"
            )
        };
        for (yaml, wanted) in [
            ("{}".to_owned(), true),
            ("{nodeSelector: {zone: a}}".to_owned(), true),
            ("{nodeSelector: {zone: b}}".to_owned(), false),
            (term("{key: zone, operator: In, values: [a, b]}"), true),
            (term("{key: zone, operator: NotIn, values: [a]}"), false),
            (term("{key: rack, operator: NotIn, values: [a]}"), true),
            (term("{key: rack, operator: DoesNotExist}"), true),
            (term("{key: rack, operator: Exists}"), false),
            (term("{key: cores, operator: Gt, values: ['32']}"), true),
            (term("{key: cores, operator: Lt, values: ['64']}"), false),
            (term("{key: zone, operator: Gt, values: ['1']}"), false),
        ] {
            assert_eq!(admits(&options(&yaml), &node), wanted, "{yaml}");
        }
    }

    #[test]
    fn nothing_is_lost_in_translation() {
        let affinity = json!({
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}}]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
                "topologyKey": "zone", "namespaces": ["x"], "namespaceSelector": {"matchLabels": {"c": "d"}},
                "labelSelector": {"matchExpressions": [{"key": "e", "operator": "NotIn", "values": ["f"]}]}}]}});
        let tolerations = json!([{"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 5}]);
        let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"a": "b"}}}]);
        let given = json!({"affinity": affinity, "tolerations": tolerations, "topologySpreadConstraints": spread});
        let additions = additions(&serde_json::from_value(given).unwrap(), &[]).unwrap();
        let held =
            |written: serde_json::Value, wanted| crate::controller::apply::holds(&written, wanted);
        assert!(held(json!(additions.affinity), &affinity));
        assert!(held(json!(additions.tolerations), &tolerations));
        assert!(held(json!(additions.spread), &spread));
    }

    #[test]
    fn what_is_forbidden_is_named() {
        let forbidden = ["priorityClassName", "tolerations"].map(str::to_owned);
        let given =
            options("{priorityClassName: high, tolerations: [{operator: Exists}], labels: {a: b}}");
        let refusal = additions(&given, &forbidden).unwrap_err();
        assert_eq!(refusal.reason, Reason::PodFieldForbidden);
        assert!(
            refusal
                .message
                .contains("spec.pod.tolerations, spec.pod.priorityClassName"),
            "{}",
            refusal.message
        );
        assert!(additions(&options("{labels: {a: b}}"), &forbidden).is_ok());
    }
}
