//! Who may do what, in two tables. The operator's own rights: the roles of the plain manifests and of the Helm chart are
//! both made from them, and a test holds them against the calls the operator really makes; no wildcard, no Secret, no
//! `pods/exec`. And what people get: rules that Kubernetes adds to its own view, edit and admin roles.

use k8s_openapi::api::rbac::v1::PolicyRule;

/// Where a rule must be granted when the operator is confined to one namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// In the operator's own namespace: always a Role.
    Own,
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
        group: "policy",
        resource: "poddisruptionbudgets",
        verbs: OWN_AND_DELETE,
        scope: Scope::Namespace,
        why: "one for a model of several replicas",
    },
    Rule {
        group: "networking.k8s.io",
        resource: "networkpolicies",
        verbs: OWN_AND_DELETE,
        scope: Scope::Namespace,
        why: "who may talk to a model's pods, where serving.networkPolicy asks for it",
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
    Rule {
        group: "coordination.k8s.io",
        resource: "leases",
        verbs: &["get", "create", "update"],
        scope: Scope::Own,
        why: "which of several operators acts",
    },
];

/// A role that Kubernetes adds to its own ones by their labels.
#[derive(Clone, Copy, Debug)]
pub struct Aggregated {
    /// Suffix of its name.
    pub name: &'static str,
    /// Kubernetes' roles that it becomes part of.
    pub into: &'static [&'static str],
    /// (resource, verbs) of the KimiModel's group.
    pub rights: &'static [(&'static str, &'static [&'static str])],
}

/// What those get who may view or edit a namespace.
pub const AGGREGATED: &[Aggregated] = &[
    Aggregated {
        name: "view",
        into: &["view", "edit", "admin"],
        rights: &[
            ("kimimodels", &["get", "list", "watch"]),
            ("kimimodels/status", &["get"]),
        ],
    },
    Aggregated {
        name: "edit",
        into: &["edit", "admin"],
        rights: &[
            (
                "kimimodels",
                &["create", "update", "patch", "delete", "deletecollection"],
            ),
            ("kimimodels/scale", &["get", "update", "patch"]),
        ],
    },
];

/// The rules of a ClusterRole for every namespace.
#[must_use]
pub fn policy_rules() -> Vec<PolicyRule> {
    rules(|scope| scope != Scope::Own)
}

/// The rules of the Role in the operator's own namespace.
#[must_use]
pub fn own_rules() -> Vec<PolicyRule> {
    rules(|scope| scope == Scope::Own)
}

fn rules(wanted: fn(Scope) -> bool) -> Vec<PolicyRule> {
    let rows = RULES.iter().filter(|rule| wanted(rule.scope));
    rows.map(|rule| policy(rule.group, rule.resource, rule.verbs))
        .collect()
}

impl Aggregated {
    /// Its rules.
    #[must_use]
    pub fn policy_rules(&self) -> Vec<PolicyRule> {
        self.rights
            .iter()
            .map(|(resource, verbs)| policy(spec::GROUP, resource, verbs))
            .collect()
    }
}

fn policy(group: &str, resource: &str, verbs: &[&str]) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        verbs: verbs.iter().map(|&verb| verb.to_owned()).collect(),
        ..PolicyRule::default()
    }
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

    /// Status is the operator's to write, and a viewer changes nothing.
    #[test]
    fn people_get_no_more_than_their_role() {
        for role in AGGREGATED {
            for (resource, verbs) in role.rights {
                assert!(!resource.contains('*') && !verbs.contains(&"*"), "{role:?}");
                let reads = verbs
                    .iter()
                    .all(|verb| ["get", "list", "watch"].contains(verb));
                assert!(reads || role.name != "view", "{role:?}");
                assert!(reads || *resource != "kimimodels/status", "{role:?}");
            }
        }
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
