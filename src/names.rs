//! Every name, label, annotation and hash the operator puts on objects. It must know no object shapes and nothing
//! about when they exist.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use sizing::Facts;

/// Owner of every field the operator writes.
pub const FIELD_MANAGER: &str = "kimi-operator";
/// Value of `app.kubernetes.io/name`.
pub const APP: &str = "kimi-model";

pub const LABEL_NAME: &str = "app.kubernetes.io/name";
pub const LABEL_INSTANCE: &str = "app.kubernetes.io/instance";
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
pub const LABEL_COMPONENT: &str = "app.kubernetes.io/component";
/// Artifact id: which bytes.
pub const LABEL_ARTIFACT: &str = "kimioperator.dev/artifact";
/// Source id: which words of the spec led to the bytes.
pub const LABEL_SOURCE: &str = "kimioperator.dev/source";
/// Workload id: which bytes in which pod template.
pub const LABEL_WORKLOAD: &str = "kimioperator.dev/workload";

/// On a PVC: the `sizing::Facts` JSON of its artifact, so that they outlive the inspect Job.
pub const ANNOTATION_FACTS: &str = "kimioperator.dev/facts";
/// On a PVC: [`verified_value`] once every byte was fetched and checked.
pub const ANNOTATION_VERIFIED: &str = "kimioperator.dev/verified";
/// On a PVC: UID of the KimiModel that it belongs to, with or without an owner reference.
pub const ANNOTATION_OWNER: &str = "kimioperator.dev/owner-uid";
/// On a PVC: when the endpoint last moved to its weights, RFC 3339.
pub const ANNOTATION_SERVED: &str = "kimioperator.dev/served";
/// On a PVC that `quant: auto` led to: hash of the question, so that the answer stays when Nodes come and go.
pub const ANNOTATION_CHOICE: &str = "kimioperator.dev/choice";
/// On a Job or Deployment: hash of the words of the spec that its pod template was made from. Nodes, image and the
/// operator's own code stay out of it, so that it tells an edit from an upgrade.
pub const ANNOTATION_INPUTS: &str = "kimioperator.dev/inputs";
/// On a Deployment: the quant it serves.
pub const ANNOTATION_QUANT: &str = "kimioperator.dev/quant";
/// On a Deployment: when it was stopped to make room for its successor, RFC 3339.
pub const ANNOTATION_STOPPED_AT: &str = "kimioperator.dev/stopped-at";
/// On the Service: the last change of its selector, `crate::crd::LastSwitch` as JSON.
pub const ANNOTATION_SWITCH: &str = "kimioperator.dev/last-switch";
/// On the Service: what its selector leads to, `crate::snapshot::Selected` as JSON, so that a switch is written down in
/// full whatever is known of Deployments at that moment.
pub const ANNOTATION_SELECTED: &str = "kimioperator.dev/selected";
/// On a Deployment that was stopped: when none of its pods was ready any more, RFC 3339. Until then the Service led to
/// them: without a ready endpoint it leads to those that end and still answer.
pub const ANNOTATION_DARK_AT: &str = "kimioperator.dev/dark-at";
/// On a Deployment that was stopped: when its last pod was gone, RFC 3339.
pub const ANNOTATION_EMPTIED_AT: &str = "kimioperator.dev/emptied-at";
/// On the Service: the target that was last rolled back, `crate::snapshot::GivenUp` as JSON, so that the same spec is
/// not tried again, or [`NOTHING_GIVEN_UP`].
pub const ANNOTATION_GIVEN_UP: &str = "kimioperator.dev/given-up";
/// Nothing is rolled back any more: written, since an annotation that is merely left out is nothing to write.
pub const NOTHING_GIVEN_UP: &str = "none";
/// On the Service: the last changes, `crate::crd::HistoryEntry` as a JSON list, newest first.
pub const ANNOTATION_HISTORY: &str = "kimioperator.dev/history";

/// On a KimiModel: a new value restarts the server, through the same staged path as an edit. On a server's pods: the
/// value's hash.
pub const ANNOTATION_RESTART: &str = "kimioperator.dev/restart";
/// On a KimiModel: a new value has the weights hashed again, and what is wrong or lost fetched anew.
pub const ANNOTATION_REFETCH: &str = "kimioperator.dev/refetch";
/// On a PVC: hash of the refetch value up to which its weights are verified.
pub const ANNOTATION_REFETCHED: &str = "kimioperator.dev/refetched";

/// On a PVC, by Kubernetes' scheduler: the Node for which its volume was made.
pub const ANNOTATION_SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Workload id that no pod carries: the Service's selector before the first pod has passed its self-test.
pub const NO_WORKLOAD: &str = "none";

/// The extended resource by which a Node advertises whole GPUs.
pub const GPU_RESOURCE: &str = "nvidia.com/gpu";

/// What a pod is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Component {
    Inspect,
    Fetch,
    Server,
}

impl Component {
    pub const ALL: [Self; 3] = [Self::Inspect, Self::Fetch, Self::Server];

    /// Value of `app.kubernetes.io/component`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Fetch => "fetch",
            Self::Server => "server",
        }
    }
}

/// First ten hex digits of the SHA-256 of `text`: 40 bits, since ids are only compared within one KimiModel.
#[must_use]
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Id of the bytes that facts describe.
#[must_use]
pub fn artifact_id(facts: &Facts) -> String {
    short_hash(&format!(
        "{}\n{}\n{}\n",
        facts.repo, facts.commit, facts.digest
    ))
}

/// Id of the words that name a source. Each part ends a line, so that no two lists of words collide.
#[must_use]
pub fn source_id(
    endpoint: Option<&str>,
    repo: &str,
    revision: &str,
    path: Option<&str>,
    quant: &str,
) -> String {
    short_hash(&format!(
        "{}\n{repo}\n{revision}\n{}\n{quant}\n",
        endpoint.unwrap_or_default(),
        path.unwrap_or_default()
    ))
}

/// Value of [`ANNOTATION_VERIFIED`] for an artifact.
#[must_use]
pub fn verified_value(facts: &Facts) -> String {
    format!("{}+{}", facts.commit, facts.digest)
}

#[must_use]
pub fn inspect_job(model: &str, source: &str) -> String {
    format!("{model}-inspect-{source}")
}

#[must_use]
pub fn fetch_job(model: &str, artifact: &str) -> String {
    format!("{model}-fetch-{artifact}")
}

#[must_use]
pub fn server_policy(model: &str) -> String {
    format!("{model}-server")
}

#[must_use]
pub fn job_policy(model: &str) -> String {
    format!("{model}-jobs")
}

#[must_use]
pub fn claim(model: &str, artifact: &str) -> String {
    format!("{model}-{artifact}")
}

#[must_use]
pub fn deployment(model: &str, workload: &str) -> String {
    format!("{model}-{workload}")
}

/// Labels of every object of one model.
#[must_use]
pub fn labels(model: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (LABEL_NAME.to_owned(), APP.to_owned()),
        (LABEL_INSTANCE.to_owned(), model.to_owned()),
        (LABEL_MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned()),
    ])
}

/// Labels of the objects and pods of one part of one model.
#[must_use]
pub fn component_labels(model: &str, component: Component) -> BTreeMap<String, String> {
    let mut labels = labels(model);
    labels.insert(LABEL_COMPONENT.to_owned(), component.as_str().to_owned());
    labels
}
