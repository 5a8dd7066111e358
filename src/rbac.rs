//! What the operator may do, in one table: the ClusterRole of the plain manifests and of the Helm chart are both made
//! from it, and a test holds it against the calls the controller really makes. No wildcard, no Secret, no `pods/exec`.

use k8s_openapi::api::rbac::v1::PolicyRule;

/// Where a rule must be granted when the operator is confined to one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the watched namespaces; a Role is enough for one namespace.
    Namespace,
    /// Cluster-wide, because the resource belongs to no namespace.
    Cluster,
}

/// One row: who reads or writes what, and why.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    pub group: &'static str,
    pub resource: &'static str,
    pub verbs: &'static [&'static str],
    pub scope: Scope,
    pub why: &'static str,
}

const READ: &[&str] = &["list", "watch"];
/// Server-side apply needs `create` for a new object and `patch` for every object; `get` looks whether a name is taken.
const OWN: &[&str] = &["get", "list", "watch", "create", "patch"];
const OWN_AND_DELETE: &[&str] = &["get", "list", "watch", "create", "patch", "delete"];

/// Every permission of the operator.
pub const RULES: &[Rule] = &[
    Rule {
        group: "kimioperator.dev",
        resource: "kimimodels",
        verbs: READ,
        scope: Scope::Namespace,
        why: "the objects to reconcile; their spec is never written",
    },
    Rule {
        group: "kimioperator.dev",
        resource: "kimimodels/status",
        verbs: &["patch"],
        scope: Scope::Namespace,
        why: "conditions, plan and progress",
    },
    Rule {
        group: "batch",
        resource: "jobs",
        verbs: OWN_AND_DELETE,
        scope: Scope::Namespace,
        why: "inspect and fetch Jobs; a failed one is deleted to be tried again",
    },
    Rule {
        group: "apps",
        resource: "deployments",
        verbs: OWN_AND_DELETE,
        scope: Scope::Namespace,
        why: "one Deployment per artifact and pod template; the drained one is deleted",
    },
    Rule {
        group: "",
        resource: "services",
        verbs: OWN,
        scope: Scope::Namespace,
        why: "the stable endpoint whose selector names the active weights",
    },
    Rule {
        group: "",
        resource: "persistentvolumeclaims",
        verbs: OWN_AND_DELETE,
        scope: Scope::Namespace,
        why: "one claim per artifact; its annotations say what it holds; deleted only by storage.keepQuants or rollout.strategy Replace",
    },
    Rule {
        group: "",
        resource: "pods",
        verbs: READ,
        scope: Scope::Namespace,
        why: "readiness, scheduling failures, progress address, termination messages",
    },
    Rule {
        group: "",
        resource: "events",
        verbs: READ,
        scope: Scope::Namespace,
        why: "ProvisioningFailed of claims: why there is no volume stands nowhere else",
    },
    Rule {
        group: "events.k8s.io",
        resource: "events",
        verbs: &["create", "patch"],
        scope: Scope::Namespace,
        why: "what was planned, staged, switched, rolled back or refused, for kubectl describe; patch counts repeats",
    },
    Rule {
        group: "discovery.k8s.io",
        resource: "endpointslices",
        verbs: READ,
        scope: Scope::Namespace,
        why: "whether the Service has a ready endpoint, which is what an outage is measured by",
    },
    Rule {
        group: "",
        resource: "configmaps",
        verbs: &["get"],
        scope: Scope::Namespace,
        why: "the one key that spec.quantFrom names; never listed",
    },
    Rule {
        group: "",
        resource: "nodes",
        verbs: READ,
        scope: Scope::Cluster,
        why: "GPU labels and allocatable memory",
    },
];

/// The table as the rules of a ClusterRole.
#[must_use]
pub fn policy_rules() -> Vec<PolicyRule> {
    RULES
        .iter()
        .map(|rule| PolicyRule {
            api_groups: Some(vec![rule.group.to_owned()]),
            resources: Some(vec![rule.resource.to_owned()]),
            verbs: rule.verbs.iter().map(|&verb| verb.to_owned()).collect(),
            ..PolicyRule::default()
        })
        .collect()
}

/// True if some row grants `verb` on `resource` (with its subresource after a slash) of `group`.
#[must_use]
pub fn allows(group: &str, resource: &str, verb: &str) -> bool {
    RULES
        .iter()
        .any(|rule| rule.group == group && rule.resource == resource && rule.verbs.contains(&verb))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_broader_than_a_named_resource() {
        for rule in RULES {
            assert!(
                !rule.group.contains('*') && !rule.resource.contains('*'),
                "{rule:?}"
            );
            assert!(!rule.verbs.contains(&"*"), "{rule:?}");
            assert!(!rule.resource.starts_with("secrets"), "{rule:?}");
            assert!(
                !["pods/exec", "pods/attach", "pods/log"].contains(&rule.resource),
                "{rule:?}"
            );
            assert!(!rule.why.is_empty(), "{rule:?}");
        }
        assert!(
            !allows("kimioperator.dev", "kimimodels", "patch"),
            "the spec is the user's"
        );
        assert!(!allows("", "secrets", "get"));
    }

    #[test]
    fn each_resource_has_one_row() {
        for (index, rule) in RULES.iter().enumerate() {
            let again = RULES[..index]
                .iter()
                .any(|r| r.group == rule.group && r.resource == rule.resource);
            assert!(!again, "{} appears twice", rule.resource);
        }
    }
}
