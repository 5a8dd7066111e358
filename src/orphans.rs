//! Retained volumes whose KimiModel is gone: found among all claims of the operator, listed for people by
//! `kimi-operator orphans`, and counted in a metric. It deletes nothing: that takes a person and `kubectl delete pvc`.

use std::collections::BTreeSet;
use std::fmt::Write;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use sizing::Facts;
use spec::format_bytes;

use crate::controller::observe::claim::owner_uid;
use crate::crd::KimiModel;
use crate::names;

/// A claim that no KimiModel has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Orphan {
    pub namespace: String,
    pub claim: String,
    /// Name of the KimiModel that it belonged to; one of the same name takes it over.
    pub model: String,
    /// Quant of the weights, where the claim says it.
    pub quant: Option<String>,
    /// Size requested.
    pub bytes: u64,
    pub created: Option<Timestamp>,
}

/// The claims whose owner is not among the UIDs of the KimiModels there are.
pub fn find<'a>(
    claims: impl IntoIterator<Item = &'a PersistentVolumeClaim>,
    living: &BTreeSet<String>,
) -> Vec<Orphan> {
    let orphaned = |claim: &&PersistentVolumeClaim| {
        claim.labels().contains_key(names::LABEL_ARTIFACT)
            && claim.metadata.deletion_timestamp.is_none()
            && owner_uid(&claim.metadata).is_none_or(|uid| !living.contains(uid))
    };
    let mut orphans: Vec<Orphan> = claims.into_iter().filter(orphaned).map(orphan).collect();
    orphans.sort_by(|a, b| (&a.namespace, &a.claim).cmp(&(&b.namespace, &b.claim)));
    orphans
}

fn orphan(claim: &PersistentVolumeClaim) -> Orphan {
    let facts = claim
        .annotations()
        .get(names::ANNOTATION_FACTS)
        .and_then(|json| Facts::parse(json).ok());
    let requests = claim
        .spec
        .as_ref()
        .and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    Orphan {
        namespace: claim.namespace().unwrap_or_default(),
        claim: claim.name_any(),
        model: claim
            .labels()
            .get(names::LABEL_INSTANCE)
            .cloned()
            .unwrap_or_default(),
        quant: facts.map(|facts| facts.quant),
        bytes: requests
            .and_then(|requests| spec::parse_quantity(&requests.get("storage")?.0))
            .unwrap_or(0),
        created: claim.creation_timestamp().map(|time| time.0),
    }
}

/// Asks the cluster, in one namespace or in all.
///
/// # Errors
/// The API server's refusal of either list.
pub async fn list(client: &Client, namespace: Option<&str>) -> Result<Vec<Orphan>, kube::Error> {
    let ours = format!("{}={}", names::LABEL_MANAGED_BY, names::FIELD_MANAGER);
    let claims: Api<PersistentVolumeClaim> = scoped(client, namespace);
    // Claims first: a KimiModel made between the two lists then has none of them yet.
    let claims = claims.list(&ListParams::default().labels(&ours)).await?;
    let models: Api<KimiModel> = scoped(client, namespace);
    let models = models.list_metadata(&ListParams::default()).await?;
    let living = models.items.iter().filter_map(ResourceExt::uid).collect();
    Ok(find(&claims.items, &living))
}

fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// One line per orphan and a sum, in kubectl's manner.
#[must_use]
pub fn table(orphans: &[Orphan], now: Timestamp) -> String {
    if orphans.is_empty() {
        return "No retained volume without its KimiModel.\n".to_owned();
    }
    let mut rows = vec![["NAMESPACE", "PVC", "MODEL", "QUANT", "SIZE", "AGE"].map(str::to_owned)];
    rows.extend(orphans.iter().map(|orphan| {
        [
            orphan.namespace.clone(),
            orphan.claim.clone(),
            orphan.model.clone(),
            orphan.quant.clone().unwrap_or_else(|| "?".to_owned()),
            format_bytes(orphan.bytes),
            orphan
                .created
                .map_or_else(|| "?".to_owned(), |at| age(at, now)),
        ]
    }));
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", line.join("   ").trim_end());
    }
    let bytes = orphans
        .iter()
        .fold(0_u64, |sum, o| sum.saturating_add(o.bytes));
    let _ = writeln!(
        text,
        "\n{} in all. A KimiModel of the same name and namespace takes its volume over; \
         kubectl delete pvc removes one for good.",
        format_bytes(bytes)
    );
    text
}

/// `3d`, `5h`, `12m`.
fn age(since: Timestamp, now: Timestamp) -> String {
    let minutes = now.duration_since(since).as_mins().max(0);
    match minutes {
        0..60 => format!("{minutes}m"),
        60..1440 => format!("{}h", minutes / 60),
        _ => format!("{}d", minutes / 1440),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claim(name: &str, owner: Option<&str>, referred: Option<&str>) -> PersistentVolumeClaim {
        let mut claim = json!({
            "metadata": {"name": name, "namespace": "llm", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {names::LABEL_INSTANCE: "reader", names::LABEL_ARTIFACT: "abc"}, "annotations": {}},
            "spec": {"resources": {"requests": {"storage": "300G"}}}
        });
        if let Some(uid) = owner {
            claim["metadata"]["annotations"][names::ANNOTATION_OWNER] = json!(uid);
        }
        if let Some(uid) = referred {
            claim["metadata"]["ownerReferences"] = json!([
                {"apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel", "name": "reader", "uid": uid}]);
        }
        serde_json::from_value(claim).unwrap()
    }

    #[test]
    fn an_orphan_is_a_claim_whose_owner_is_gone() {
        let claims = [
            claim("ours", Some("alive"), None),
            claim("older-operator", None, Some("alive")),
            claim("retained", Some("dead"), None),
            claim("orphaned-by-cascade", None, None),
        ];
        let living = BTreeSet::from(["alive".to_owned()]);
        let found = find(&claims, &living);
        let names: Vec<&str> = found.iter().map(|orphan| orphan.claim.as_str()).collect();
        assert_eq!(names, ["orphaned-by-cascade", "retained"]);
        let now = "2026-01-03T01:00:00Z".parse().unwrap();
        let text = table(&found, now);
        let line = "llm         retained              reader   ?       300 GB   2d";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("600 GB in all"), "{text}");
        assert!(table(&[], now).starts_with("No retained volume"));
    }
}
