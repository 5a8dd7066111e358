//! Kubernetes' own words for where pods run, with limits. It must know no rules beyond their shape.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::label_map;
use crate::schema;

/// A taint that is put up with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct Toleration {
    /// Key of the taint; every taint when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::QUALIFIED))]
    pub key: Option<String>,
    /// Whether the value counts.
    #[serde(default)]
    #[schemars(extend("default" = "Equal"))]
    pub operator: TolerationOperator,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = schema::LABEL_VALUE))]
    pub value: Option<String>,
    /// Effect of the taint; every effect when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// How long a NoExecute taint is put up with; for ever when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration's value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TolerationOperator {
    #[default]
    Equal,
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TaintEffect {
    NoSchedule,
    PreferNoSchedule,
    NoExecute,
}

/// Attraction to Nodes and pods, and repulsion from pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct Affinity {
    /// Nodes, for every pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_affinity: Option<NodeAffinity>,
    /// Pods to be near, for server pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_affinity: Option<PodAffinity>,
    /// Pods to be away from, for server pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_anti_affinity: Option<PodAffinity>,
}

/// Nodes that pods must or rather should run on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct NodeAffinity {
    /// Terms of which one must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
    /// Terms that weigh.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredNodeTerm>,
}

/// Terms of which one must hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct NodeSelector {
    /// The terms.
    #[schemars(length(min = 1, max = 16))]
    pub node_selector_terms: Vec<NodeTerm>,
}

/// A term that weighs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PreferredNodeTerm {
    /// How much.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The term.
    pub preference: NodeTerm,
}

/// Requirements that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct NodeTerm {
    /// Requirements on the Node's labels.
    #[schemars(length(min = 1, max = 16))]
    pub match_expressions: Vec<NodeRequirement>,
}

/// A requirement on one label of a Node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct NodeRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::QUALIFIED))]
    pub key: String,
    /// What must hold.
    pub operator: NodeOperator,
    /// Values to compare with: some for In and NotIn, one whole number for Gt and Lt, none otherwise.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// What must hold of a Node's label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum NodeOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

/// Pods that decide where others run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct PodAffinity {
    /// Terms that must all hold.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub required_during_scheduling_ignored_during_execution: Vec<PodTerm>,
    /// Terms that weigh.
    #[serde(default)]
    #[schemars(length(max = 8))]
    pub preferred_during_scheduling_ignored_during_execution: Vec<PreferredPodTerm>,
}

/// A term that weighs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct PreferredPodTerm {
    /// How much.
    #[schemars(range(min = 1, max = 100))]
    pub weight: i32,
    /// The term.
    pub pod_affinity_term: PodTerm,
}

/// Pods in one topology domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct PodTerm {
    /// Which pods.
    pub label_selector: LabelSelector,
    /// Label of Nodes whose value names the domain.
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::QUALIFIED))]
    pub topology_key: String,
    /// Namespaces of those pods; the model's own when neither these nor a selector are given.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub namespaces: Vec<String>,
    /// Labels of their namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// Labels that must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct LabelSelector {
    /// Labels and their values.
    #[serde(default)]
    #[schemars(schema_with = "label_map")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements on labels.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct LabelRequirement {
    /// Key of the label.
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::QUALIFIED))]
    pub key: String,
    /// What must hold.
    pub operator: LabelOperator,
    /// Values to compare with: some for In and NotIn, none otherwise.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(max = 63)))]
    pub values: Vec<String>,
}

/// What must hold of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LabelOperator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// How server pods spread over one kind of domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline, transform = schema::optional_means_absent)]
pub struct TopologySpreadConstraint {
    /// Largest difference between two domains.
    #[schemars(range(min = 1, max = 100))]
    pub max_skew: i32,
    /// Label of Nodes whose value names the domain.
    #[schemars(length(min = 1, max = 317), regex(pattern = schema::QUALIFIED))]
    pub topology_key: String,
    /// Whether a pod that would skew more waits or is placed all the same.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Which pods are counted. Default: the model's own servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
}

/// What happens to a pod that would skew too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum WhenUnsatisfiable {
    DoNotSchedule,
    ScheduleAnyway,
}
