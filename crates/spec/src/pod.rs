//! What the spec may add to the pods of a model: where they may run, what the platform wants on them, and how they reach
//! the hub. The names are Kubernetes' own, so that a block can be copied from any pod; what is not listed here cannot be
//! set. It must know nothing about the pods themselves.

mod check;
mod placement;

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

pub(crate) use self::check::{check, check_peer};
pub use self::placement::{
    Affinity, LabelOperator, LabelRequirement, LabelSelector, NodeAffinity, NodeOperator,
    NodeRequirement, NodeSelector, NodeTerm, PodAffinity, PodTerm, PreferredNodeTerm,
    PreferredPodTerm, TaintEffect, Toleration, TolerationOperator, TopologySpreadConstraint,
    WhenUnsatisfiable,
};
use crate::fields::ConfigMapKeyRef;
use crate::schema;

/// Labels of these keys are the operator's: its selectors depend on them.
pub const OWN_LABELS: [&str; 4] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/component",
];
/// Labels and annotations that start so are the operator's.
pub const OWN_PREFIX: &str = "kimioperator.dev/";

/// Entries of one map.
const MAX_ENTRIES: u64 = 32;
/// An own label or annotation in a rule. Keys are not bounded by the schema, so the rule reads their starts only.
const RESERVED_LABELS: &str = "self.all(k, !k.startsWith('kimioperator.dev/') && !(k in ['app.kubernetes.io/name', \
     'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by', 'app.kubernetes.io/component']))";
const RESERVED_ANNOTATIONS: &str = "self.all(k, !k.startsWith('kimioperator.dev/'))";

/// Additions to the pods of this model. None can replace what the operator itself sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct PodOptions {
    /// Labels that a Node must have. The Nodes that remain are those planned for.
    #[serde(default)]
    #[schemars(schema_with = "label_map")]
    pub node_selector: BTreeMap<String, String>,

    /// Taints that pods put up with, besides nvidia.com/gpu.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,

    /// Where pods may, must and must not run, in addition to what the operator asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,

    /// How server pods spread.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,

    /// PriorityClass of every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub priority_class_name: Option<String>,

    /// RuntimeClass of server pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub runtime_class_name: Option<String>,

    /// Labels for every pod.
    #[serde(default)]
    #[schemars(schema_with = "pod_labels")]
    pub labels: BTreeMap<String, String>,

    /// Annotations for every pod.
    #[serde(default)]
    #[schemars(schema_with = "pod_annotations")]
    pub annotations: BTreeMap<String, String>,

    /// Secrets with registry credentials, for every pod.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub image_pull_secrets: Vec<ObjectName>,

    /// Requests and limits of the server, beside the memory that is planned.
    #[serde(default)]
    pub resources: Resources,

    /// Proxy of the pods that read from the hub.
    #[serde(default)]
    pub proxy: Proxy,

    /// CA certificates for the hub, in PEM, in the place of the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
}

/// The fields by which an administrator can forbid them.
pub const POD_FIELDS: [&str; 12] = [
    "nodeSelector",
    "tolerations",
    "affinity",
    "topologySpreadConstraints",
    "priorityClassName",
    "runtimeClassName",
    "labels",
    "annotations",
    "imagePullSecrets",
    "resources",
    "proxy",
    "caBundle",
];

impl PodOptions {
    /// The fields that say something, by their names in [`POD_FIELDS`].
    pub fn given(&self) -> impl Iterator<Item = &'static str> {
        // No `..`: a new field fails to compile here instead of being allowed where it is forbidden.
        let Self {
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
        } = self;
        let given = [
            !node_selector.is_empty(),
            !tolerations.is_empty(),
            affinity.is_some(),
            !topology_spread_constraints.is_empty(),
            priority_class_name.is_some(),
            runtime_class_name.is_some(),
            !labels.is_empty(),
            !annotations.is_empty(),
            !image_pull_secrets.is_empty(),
            *resources != Resources::default(),
            *proxy != Proxy::default(),
            ca_bundle.is_some(),
        ];
        POD_FIELDS
            .into_iter()
            .zip(given)
            .filter_map(|(name, given)| given.then_some(name))
    }
}

/// An object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ObjectName {
    /// Its name.
    #[schemars(length(min = 1, max = 253), regex(pattern = schema::SUBDOMAIN))]
    pub name: String,
}

/// Requests and limits in quantities by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct Resources {
    /// Amounts that are set aside, of anything but memory.
    #[serde(default)]
    #[schemars(schema_with = "requests")]
    pub requests: BTreeMap<String, String>,

    /// Amounts that are not exceeded. A limit of memory must be at least what the plan requests.
    #[serde(default)]
    #[schemars(schema_with = "quantities")]
    pub limits: BTreeMap<String, String>,
}

/// A proxy, as the usual environment variables give it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct Proxy {
    /// URL of the proxy for http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 253), regex(pattern = schema::ENDPOINT))]
    pub http_proxy: Option<String>,

    /// URL of the proxy for https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 253), regex(pattern = schema::ENDPOINT))]
    pub https_proxy: Option<String>,

    /// Hosts, domains and networks that need no proxy, between commas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = schema::NO_PROXY))]
    pub no_proxy: Option<String>,
}

/// Where the certificates are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct CaBundle {
    /// Key of a ConfigMap in the same namespace.
    pub config_map_key_ref: ConfigMapKeyRef,
}

/// A map of at most [`MAX_ENTRIES`] label values.
pub(crate) fn label_map(_: &mut SchemaGenerator) -> Schema {
    map(
        &[
            ("maxLength", 63.into()),
            ("pattern", schema::LABEL_VALUE.into()),
        ],
        None,
    )
}

fn pod_labels(_: &mut SchemaGenerator) -> Schema {
    let rule = (
        RESERVED_LABELS,
        "the operator sets kimioperator.dev/ labels and app.kubernetes.io/{name,instance,managed-by,component} itself",
    );
    map(
        &[
            ("maxLength", 63.into()),
            ("pattern", schema::LABEL_VALUE.into()),
        ],
        Some(rule),
    )
}

fn pod_annotations(_: &mut SchemaGenerator) -> Schema {
    let rule = (
        RESERVED_ANNOTATIONS,
        "the operator sets kimioperator.dev/ annotations itself",
    );
    map(&[("maxLength", 4096.into())], Some(rule))
}

fn quantities(_: &mut SchemaGenerator) -> Schema {
    map(
        &[("maxLength", 24.into()), ("pattern", schema::AMOUNT.into())],
        None,
    )
}

fn requests(_: &mut SchemaGenerator) -> Schema {
    let rule = (
        "!('memory' in self)",
        "the request of memory is planned: spec.memory is its budget",
    );
    map(
        &[("maxLength", 24.into()), ("pattern", schema::AMOUNT.into())],
        Some(rule),
    )
}

fn map(value: &[(&str, serde_json::Value)], rule: Option<(&str, &str)>) -> Schema {
    let mut values = json_schema!({"type": "string"});
    for (keyword, limit) in value {
        values.insert((*keyword).to_owned(), limit.clone());
    }
    let mut map = json_schema!({
        "type": "object",
        "maxProperties": MAX_ENTRIES,
        "additionalProperties": values,
    });
    if let Some((rule, message)) = rule {
        let rules = serde_json::json!([{"rule": rule, "message": message}]);
        map.insert("x-kubernetes-validations".to_owned(), rules);
    }
    map
}
