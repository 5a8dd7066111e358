//! The rules of the pod options as code: those of the schema, and those that it cannot hold, such as the keys of maps.
//! It must know no Nodes and no pods.

use std::collections::BTreeMap;

use super::{
    Affinity, CaBundle, LabelOperator, LabelSelector, NodeOperator, NodeTerm, OWN_LABELS,
    OWN_PREFIX, PodAffinity, PodOptions, Proxy, Resources, TolerationOperator,
};
use crate::Peer;
use crate::check::{Violation, dotted, ensure, is_endpoint, is_subdomain};

/// Checks every field; the first broken rule, in field order.
pub(crate) fn check(pod: &PodOptions) -> Result<(), Violation> {
    let PodOptions {
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
        priority_class_name,
        runtime_class_name,
        labels,
        annotations,
        image_pull_secrets,
        resources,
        proxy,
        ca_bundle,
    } = pod;
    check_labels("spec.pod.nodeSelector", node_selector)?;
    for toleration in tolerations {
        let field = "spec.pod.tolerations";
        if let Some(key) = &toleration.key {
            check_key(field, key)?;
        }
        let exists = toleration.operator == TolerationOperator::Exists;
        ensure(
            field,
            !exists || toleration.value.as_deref().is_none_or(str::is_empty),
            "operator Exists takes no value",
        )?;
        ensure(
            field,
            exists || toleration.key.is_some(),
            "without a key the operator must be Exists",
        )?;
    }
    if let Some(affinity) = affinity {
        check_affinity(affinity)?;
    }
    for constraint in topology_spread_constraints {
        let field = "spec.pod.topologySpreadConstraints";
        check_key(field, &constraint.topology_key)?;
        if let Some(selector) = &constraint.label_selector {
            check_selector(field, selector)?;
        }
    }
    for (field, name) in [
        ("spec.pod.priorityClassName", priority_class_name),
        ("spec.pod.runtimeClassName", runtime_class_name),
    ] {
        let legal = name.as_deref().is_none_or(is_subdomain);
        ensure(
            field,
            legal,
            "must be a name of lower-case letters, digits, '-' and '.'",
        )?;
    }
    check_labels("spec.pod.labels", labels)?;
    let own = |key: &String| key.starts_with(OWN_PREFIX) || OWN_LABELS.contains(&key.as_str());
    ensure(
        "spec.pod.labels",
        !labels.keys().any(own),
        "the operator sets kimioperator.dev/ labels and app.kubernetes.io/{name,instance,managed-by,component} itself",
    )?;
    for (key, value) in annotations {
        let field = "spec.pod.annotations";
        check_key(field, key)?;
        ensure(
            field,
            !key.starts_with(OWN_PREFIX) && value.len() <= 4096,
            "values have at most 4096 bytes, and the operator sets kimioperator.dev/ annotations itself",
        )?;
    }
    for secret in image_pull_secrets {
        let legal = is_subdomain(&secret.name);
        ensure(
            "spec.pod.imagePullSecrets",
            legal,
            "must be names of Secrets",
        )?;
    }
    check_resources(resources)?;
    check_proxy(proxy)?;
    if let Some(CaBundle { config_map_key_ref }) = ca_bundle {
        ensure(
            "spec.pod.caBundle",
            is_subdomain(&config_map_key_ref.name) && dotted(&config_map_key_ref.key, 253),
            "must give the name of a ConfigMap and a key in it",
        )?;
    }
    Ok(())
}

/// Checks one peer of `spec.serving.networkPolicy`.
pub(crate) fn check_peer(peer: &Peer) -> Result<(), Violation> {
    let field = "spec.serving.networkPolicy.from";
    let Peer {
        namespace_selector,
        pod_selector,
    } = peer;
    ensure(
        field,
        namespace_selector.is_some() || pod_selector.is_some(),
        "a peer needs a namespaceSelector, a podSelector or both",
    )?;
    namespace_selector
        .iter()
        .chain(pod_selector)
        .try_for_each(|selector| check_selector(field, selector))
}

fn check_affinity(affinity: &Affinity) -> Result<(), Violation> {
    let Affinity {
        node_affinity,
        pod_affinity,
        pod_anti_affinity,
    } = affinity;
    if let Some(nodes) = node_affinity {
        let required = &nodes.required_during_scheduling_ignored_during_execution;
        let required = required.iter().flat_map(|all| &all.node_selector_terms);
        let preferred = &nodes.preferred_during_scheduling_ignored_during_execution;
        required
            .chain(preferred.iter().map(|term| &term.preference))
            .try_for_each(check_node_term)?;
    }
    for pods in pod_affinity.iter().chain(pod_anti_affinity) {
        let PodAffinity {
            required_during_scheduling_ignored_during_execution: required,
            preferred_during_scheduling_ignored_during_execution: preferred,
        } = pods;
        let preferred = preferred.iter().map(|term| &term.pod_affinity_term);
        for term in required.iter().chain(preferred) {
            check_key("spec.pod.affinity", &term.topology_key)?;
            check_selector("spec.pod.affinity", &term.label_selector)?;
            if let Some(selector) = &term.namespace_selector {
                check_selector("spec.pod.affinity", selector)?;
            }
        }
    }
    Ok(())
}

fn check_node_term(term: &NodeTerm) -> Result<(), Violation> {
    let field = "spec.pod.affinity.nodeAffinity";
    for requirement in &term.match_expressions {
        check_key(field, &requirement.key)?;
        let values = &requirement.values;
        let legal = match requirement.operator {
            NodeOperator::In | NodeOperator::NotIn => {
                !values.is_empty() && values.iter().all(|value| is_label_value(value))
            }
            NodeOperator::Exists | NodeOperator::DoesNotExist => values.is_empty(),
            NodeOperator::Gt | NodeOperator::Lt => {
                matches!(values.as_slice(), [value] if value.parse::<i64>().is_ok())
            }
        };
        ensure(
            field,
            legal,
            "In and NotIn take values, Gt and Lt one whole number, Exists and DoesNotExist none",
        )?;
    }
    Ok(())
}

fn check_selector(field: &'static str, selector: &LabelSelector) -> Result<(), Violation> {
    check_labels(field, &selector.match_labels)?;
    for requirement in &selector.match_expressions {
        check_key(field, &requirement.key)?;
        let values = &requirement.values;
        let legal = match requirement.operator {
            LabelOperator::In | LabelOperator::NotIn => {
                !values.is_empty() && values.iter().all(|value| is_label_value(value))
            }
            LabelOperator::Exists | LabelOperator::DoesNotExist => values.is_empty(),
        };
        ensure(
            field,
            legal,
            "In and NotIn take values, Exists and DoesNotExist none",
        )?;
    }
    Ok(())
}

fn check_resources(resources: &Resources) -> Result<(), Violation> {
    let Resources { requests, limits } = resources;
    for (field, amounts) in [
        ("spec.pod.resources.requests", requests),
        ("spec.pod.resources.limits", limits),
    ] {
        for (name, amount) in amounts {
            check_key(field, name)?;
            ensure(
                field,
                is_amount(amount),
                "must be quantities such as 4, 500m or 96Gi",
            )?;
        }
    }
    ensure(
        "spec.pod.resources.requests",
        !requests.contains_key("memory"),
        "the request of memory is planned: spec.memory is its budget",
    )
}

fn check_proxy(proxy: &Proxy) -> Result<(), Violation> {
    let Proxy {
        http_proxy,
        https_proxy,
        no_proxy,
    } = proxy;
    for url in http_proxy.iter().chain(https_proxy) {
        ensure(
            "spec.pod.proxy",
            is_endpoint(url),
            "must be http or https URLs without user, query or fragment",
        )?;
    }
    ensure(
        "spec.pod.proxy.noProxy",
        no_proxy.as_deref().is_none_or(is_no_proxy),
        "must be hosts, domains and networks between commas",
    )
}

fn check_labels(field: &'static str, labels: &BTreeMap<String, String>) -> Result<(), Violation> {
    for (key, value) in labels {
        check_key(field, key)?;
        ensure(
            field,
            is_label_value(value),
            "values have at most 63 letters, digits, '-', '_' and '.', with a letter or digit at both ends",
        )?;
    }
    Ok(())
}

fn check_key(field: &'static str, key: &str) -> Result<(), Violation> {
    ensure(
        field,
        is_qualified(key),
        "keys are names of at most 63 letters, digits, '-', '_' and '.', after a DNS prefix and '/' where they have one",
    )
}

fn is_amount(text: &str) -> bool {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &text[number.len()..];
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    text.len() <= 24
        && number.split('.').count() <= 2
        && number.split('.').all(digits)
        && [
            "", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi",
        ]
        .contains(&suffix)
}

fn is_no_proxy(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b".,:/*-".contains(&c);
    (1..=1024).contains(&text.len()) && text.bytes().all(legal)
}

/// A name, with a DNS prefix before a slash where it has one.
fn is_qualified(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    prefix.is_none_or(is_subdomain) && !name.is_empty() && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().next_back())
        && text
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::check::agree;
    use crate::schema;

    fn refused(yaml: &str) -> Option<&'static str> {
        let options: PodOptions = serde_yaml::from_str(yaml).unwrap();
        check(&options).err().map(|violation| violation.field)
    }

    #[test]
    fn code_and_schema_agree() {
        let words = [
            "", "a", "a-b", "a_b.c", "-a", "a-", "a/b", "a.b/c", "A.b/c", "a/b/c", "a b", "/a",
            "a/", ".a", "1",
        ];
        agree(schema::LABEL_VALUE, is_label_value, &words);
        agree(schema::QUALIFIED, is_qualified, &words);
        let amounts = [
            "1", "500m", "0.5", "96Gi", "1.5.2", "m", "1 Gi", "-1", "1e3", "1mi", "", "4Ki",
        ];
        agree(schema::AMOUNT, is_amount, &amounts);
        let hosts = [
            "a.b,c",
            "*.a",
            "10.0.0.0/8",
            "",
            "a b",
            "a;b",
            "[::1]",
            "fe80::1",
        ];
        agree(schema::NO_PROXY, is_no_proxy, &hosts);
    }

    #[test]
    fn what_the_operator_sets_is_refused() {
        for key in OWN_LABELS.iter().chain(&["kimioperator.dev/workload"]) {
            assert_eq!(
                refused(&format!("labels: {{{key}: x}}")),
                Some("spec.pod.labels")
            );
        }
        assert_eq!(
            refused("labels: {app.kubernetes.io/part-of: x, team: llm}"),
            None
        );
        assert_eq!(
            refused("annotations: {kimioperator.dev/facts: x}"),
            Some("spec.pod.annotations")
        );
        assert_eq!(
            refused("resources: {requests: {memory: 1Gi}}"),
            Some("spec.pod.resources.requests")
        );
        assert_eq!(
            refused(
                "resources: {requests: {cpu: '4'}, limits: {memory: 96Gi, nvidia.com/gpu: '1'}}"
            ),
            None
        );
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        for (yaml, field) in [
            ("nodeSelector: {'a b': x}", "spec.pod.nodeSelector"),
            (
                "tolerations: [{operator: Exists, value: x}]",
                "spec.pod.tolerations",
            ),
            ("tolerations: [{operator: Equal}]", "spec.pod.tolerations"),
            ("priorityClassName: A_B", "spec.pod.priorityClassName"),
            (
                "imagePullSecrets: [{name: A_B}]",
                "spec.pod.imagePullSecrets",
            ),
            (
                "proxy: {httpsProxy: 'http://user:pw@proxy:3128'}",
                "spec.pod.proxy",
            ),
            (
                "caBundle: {configMapKeyRef: {name: ca, key: ../x}}",
                "spec.pod.caBundle",
            ),
            (
                "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Gt, values: [x]}]}]}}}",
                "spec.pod.affinity.nodeAffinity",
            ),
        ] {
            assert_eq!(refused(yaml), Some(field), "{yaml}");
        }
    }

    #[test]
    fn every_field_can_be_forbidden() {
        let all = "{nodeSelector: {a: b}, tolerations: [{operator: Exists}], affinity: {}, \
            topologySpreadConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule}], \
            priorityClassName: a, runtimeClassName: a, labels: {a: b}, annotations: {a: b}, imagePullSecrets: [{name: a}], \
            resources: {limits: {cpu: '1'}}, proxy: {noProxy: a}, caBundle: {configMapKeyRef: {name: a, key: b}}}";
        let options: PodOptions = serde_yaml::from_str(all).unwrap();
        assert_eq!(
            options.given().collect::<Vec<_>>(),
            super::super::POD_FIELDS
        );
        assert_eq!(PodOptions::default().given().count(), 0);
        let names = serde_json::to_value(&options).unwrap();
        for name in super::super::POD_FIELDS {
            assert!(names.get(name).is_some(), "{name} is no field");
        }
    }
}
