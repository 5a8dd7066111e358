//! All writes to the cluster except the status: server-side apply under one field manager, creation of Jobs, which are
//! never applied again, and deletion. A write happens only if the live object lacks something of the intent, so that an
//! idle operator writes nothing. It must not decide what to write.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::build::{Applied, DeletedKind, Deletion, Prepared, Resources, Scale, Suspension};
use super::observe::Live;
use super::own_writes::OwnWrites;
use crate::names::{self, FIELD_MANAGER};
use crate::telemetry::Metrics;

/// A write the API server refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot apply {kind} {name}: {source}")]
    Apply {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error("cannot delete {kind} {name}: {source}")]
    Delete {
        kind: &'static str,
        name: String,
        source: Box<kube::Error>,
    },
    #[error(
        "PersistentVolumeClaim {name} cannot grow: {class} does not expand volumes (allowVolumeExpansion): {source}"
    )]
    CannotExpand {
        name: String,
        /// The StorageClass in words.
        class: String,
        source: Box<kube::Error>,
    },
    #[error("{kind} {name} exists and is not ours; rename the KimiModel or delete that object")]
    NameTaken { kind: &'static str, name: String },
    #[error("{kind} {name} is not as the watch shows it; looking again")]
    Unseen { kind: &'static str, name: String },
    #[error(
        "Service {name} stays where it is: no pod of {workload} is ready any more; looking again"
    )]
    NotReady { name: String, workload: String },
    #[error("cannot write {kind} {name} as JSON: {source}")]
    Encode {
        kind: &'static str,
        name: String,
        source: serde_json::Error,
    },
}

impl Error {
    /// The reason word of a refusal that waiting alone does not cure (a quota, a policy, an invalid field, a name that is
    /// taken); `None` for what a retry may get past.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::NameTaken { .. } => Some("NameTaken".to_owned()),
            Self::Encode { .. } => Some("Bug".to_owned()),
            Self::CannotExpand { .. } => Some("StorageClassCannotExpand".to_owned()),
            Self::Unseen { .. } | Self::NotReady { .. } => None,
            Self::Apply { source, .. } | Self::Delete { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.message.contains("exceeded quota") => {
                    let storage = matches!(self, Self::Apply { kind, .. } if *kind == PersistentVolumeClaim::KIND);
                    let word = if storage {
                        "InsufficientStorage"
                    } else {
                        "QuotaExceeded"
                    };
                    Some(word.to_owned())
                }
                kube::Error::Api(status) if [400, 403, 422].contains(&status.code) => {
                    let word: String = status
                        .reason
                        .chars()
                        .filter(char::is_ascii_alphabetic)
                        .collect();
                    Some(if word.is_empty() {
                        "WriteRefused".to_owned()
                    } else {
                        word
                    })
                }
                _ => None,
            },
        }
    }
}

impl Error {
    /// Of a look before a write.
    fn read(kind: &'static str, name: &str, source: kube::Error) -> Self {
        Self::Apply {
            kind,
            name: name.to_owned(),
            source: Box::new(source),
        }
    }

    /// Of a refused claim: names the class where the class is the reason. Kubernetes' own words for that are those of its
    /// admission plugin, which has no code of its own.
    fn of_claim(self, claim: &PersistentVolumeClaim) -> Self {
        match self {
            Self::Apply { name, source, .. } if says_no_expansion(&source) => {
                let class = claim
                    .spec
                    .as_ref()
                    .and_then(|spec| spec.storage_class_name.as_ref());
                Self::CannotExpand {
                    name,
                    class: class.map_or_else(
                        || "the default StorageClass".to_owned(),
                        |class| format!("StorageClass {class}"),
                    ),
                    source,
                }
            }
            other => other,
        }
    }
}

fn says_no_expansion(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code == 403 && status.message.contains("must support resize"))
}

/// A kind that the operator writes, with the short name used in metrics and errors.
pub trait Owned:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Serialize
    + DeserializeOwned
    + Clone
    + Debug
{
    const KIND: &'static str;
    /// Applied to the very version that was seen, or not at all: an intent made from an older one would undo what it
    /// does not know.
    const EXACT: bool = false;
}

impl Owned for Job {
    const KIND: &'static str = "Job";
}
impl Owned for Deployment {
    const KIND: &'static str = "Deployment";
}
impl Owned for Service {
    const KIND: &'static str = "Service";
    const EXACT: bool = true;
}
impl Owned for PodDisruptionBudget {
    const KIND: &'static str = "PodDisruptionBudget";
}
impl Owned for NetworkPolicy {
    const KIND: &'static str = "NetworkPolicy";
}
impl Owned for PersistentVolumeClaim {
    const KIND: &'static str = "PersistentVolumeClaim";
}

/// Writes for the objects of one namespace.
#[derive(Clone)]
pub struct Writer<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
    /// The KimiModel that they are of.
    pub model: &'a str,
    pub metrics: &'a Metrics,
    pub own_writes: &'a OwnWrites,
}

impl Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Writer<'_> {
    /// Writes what a step prepared, in an order in which nothing waits for something later: volumes, what mounts them,
    /// the Service; deletions last. What would leave the endpoint dark if it was decided on an old view is confirmed by
    /// a read that no cache answers: a server is taken away, or the endpoint moves.
    ///
    /// # Errors
    /// The first refusal; what was written before it stays, and the next reconcile goes on from there.
    pub async fn write(
        &self,
        prepared: Resources<Prepared>,
        live: &Live,
    ) -> Result<Resources<Applied>, Error> {
        let Resources {
            claims,
            ownerships,
            jobs,
            deployments,
            scales,
            services,
            budgets,
            policies,
            suspensions,
            deletions,
            stage: _,
        } = &prepared;
        let takes_a_server = scales.iter().any(|scale| scale.replicas == 0)
            || deletions
                .iter()
                .any(|deletion| deletion.kind == DeletedKind::Deployment);
        if let (true, Some(service)) = (takes_a_server, services.first()) {
            self.confirm_endpoint(service, live.service.as_deref())
                .await?;
        }
        for claim in claims {
            self.apply(claim, named(&live.claims, &claim.name_any()))
                .await
                .map_err(|error| error.of_claim(claim))?;
        }
        for ownership in ownerships {
            let given = live
                .given
                .as_deref()
                .filter(|given| given.name_any() == ownership.claim);
            if let Some(live) = given.or_else(|| named(&live.claims, &ownership.claim)) {
                self.merge(&ownership.claim, &ownership.patch(live), Some(live))
                    .await?;
            }
        }
        for job in jobs {
            // A Job's template is immutable, so an existing one is never applied again.
            if named(&live.jobs, &job.name_any()).is_none() {
                self.create(job).await?;
            }
        }
        for deployment in deployments {
            self.apply(deployment, named(&live.deployments, &deployment.name_any()))
                .await?;
        }
        for scale in scales {
            self.scale(scale, named(&live.deployments, &scale.deployment))
                .await?;
        }
        for service in services {
            self.confirm_ready(service, live.service.as_deref()).await?;
            self.apply(service, live.service.as_deref()).await?;
        }
        for budget in budgets {
            self.apply(budget, named(&live.budgets, &budget.name_any()))
                .await?;
        }
        for policy in policies {
            self.apply(policy, named(&live.policies, &policy.name_any()))
                .await?;
        }
        for suspension in suspensions {
            self.suspend(suspension, named(&live.jobs, &suspension.job))
                .await?;
        }
        for Deletion { kind, name, uid } in deletions {
            match kind {
                // A Job stays visible until its pods have let go of the volume.
                DeletedKind::Job => {
                    self.delete::<Job>(name, uid, DeleteParams::foreground())
                        .await?
                }
                DeletedKind::Claim => {
                    self.delete::<PersistentVolumeClaim>(name, uid, DeleteParams::background())
                        .await?
                }
                DeletedKind::Budget => {
                    self.delete::<PodDisruptionBudget>(name, uid, DeleteParams::background())
                        .await?
                }
                DeletedKind::Policy => {
                    self.delete::<NetworkPolicy>(name, uid, DeleteParams::background())
                        .await?
                }
                DeletedKind::Deployment => {
                    self.delete::<Deployment>(name, uid, DeleteParams::background())
                        .await?
                }
            }
        }
        Ok(prepared.applied())
    }

    /// Makes what nobody applies again. Only where the name is taken does it matter by whom: the API server creates or
    /// refuses in one step, and spares the look before.
    async fn create<K: Owned>(&self, intent: &K) -> Result<(), Error> {
        let (kind, name) = (K::KIND, intent.name_any());
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let created = self.api::<K>().create(&params, intent).await;
        self.metrics.wrote(kind, "create");
        match created {
            Ok(created) => {
                tracing::info!(kind, name, "created");
                self.note(None, &created);
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                self.apply(intent, None).await
            }
            Err(source) => Err(Error::Apply {
                kind,
                name,
                source: Box::new(source),
            }),
        }
    }

    /// Makes the live object hold the intent, by a write only if it does not.
    async fn apply<K: Owned>(&self, intent: &K, live: Option<&K>) -> Result<(), Error> {
        let name = intent.name_any();
        let mut body = encode(intent)?;
        match live {
            Some(live) if holds(&encode(live)?, &body) => return Ok(()),
            Some(live) if K::EXACT => {
                body["metadata"]["resourceVersion"] = json!(live.resource_version());
            }
            Some(_) => {}
            None => self.refuse_unseen(intent).await?,
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self
            .api::<K>()
            .patch(&name, &params, &Patch::Apply(&body))
            .await;
        self.metrics.wrote(K::KIND, "apply");
        let written = written.map_err(|source| Error::Apply {
            kind: K::KIND,
            name: name.clone(),
            source: Box::new(source),
        })?;
        tracing::info!(kind = K::KIND, name, "applied");
        self.note(live, &written);
        Ok(())
    }

    /// The Service is the one that was seen: which server may go depends on what it selects.
    async fn confirm_endpoint(
        &self,
        intent: &Service,
        seen: Option<&Service>,
    ) -> Result<(), Error> {
        let (kind, name) = (Service::KIND, intent.name_any());
        let found = self.api::<Service>().get_metadata_opt(&name).await;
        let found = found.map_err(|source| Error::read(kind, &name, source))?;
        let version = |meta: &ObjectMeta| meta.resource_version.clone();
        let (now, then) = (
            found.and_then(|found| version(&found.metadata)),
            seen.and_then(|seen| version(&seen.metadata)),
        );
        if now == then {
            Ok(())
        } else {
            Err(Error::Unseen { kind, name })
        }
    }

    /// Where the endpoint moves from one workload to another, a pod of the other is ready.
    async fn confirm_ready(&self, intent: &Service, seen: Option<&Service>) -> Result<(), Error> {
        let selects = |service: &Service| service.spec.as_ref().and_then(|s| s.selector.clone());
        let Some(wanted) = selects(intent) else {
            return Ok(());
        };
        let before = seen.and_then(selects);
        let to_none =
            wanted.get(names::LABEL_WORKLOAD).map(String::as_str) == Some(names::NO_WORKLOAD);
        if to_none || before.is_none_or(|before| before == wanted) {
            return Ok(());
        }
        let labels: Vec<String> = wanted
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let params = ListParams::default().labels(&labels.join(","));
        let pods = Api::<Pod>::namespaced(self.client.clone(), self.namespace);
        let name = intent.name_any();
        let pods = pods.list(&params).await;
        let pods = pods.map_err(|source| Error::read(Service::KIND, &name, source))?;
        if pods.iter().any(is_ready) {
            Ok(())
        } else {
            let workload = wanted.get(names::LABEL_WORKLOAD).cloned();
            Err(Error::NotReady {
                name,
                workload: workload.unwrap_or_default(),
            })
        }
    }

    /// An object of this name that the watch does not show is one of ours that it will show soon, or somebody else's:
    /// force must not write over the first blindly, nor take the second over. Ours without the labels that it is watched
    /// and found by was edited by hand; applying gives them back.
    async fn refuse_unseen<K: Owned>(&self, intent: &K) -> Result<(), Error> {
        let (kind, name) = (K::KIND, intent.name_any());
        let found = self.api::<K>().get_metadata_opt(&name).await;
        let found = found.map_err(|source| Error::read(kind, &name, source))?;
        let Some(found) = found else { return Ok(()) };
        let keeps = |key: &str| found.labels().get(key) == intent.labels().get(key);
        match (keeps(names::LABEL_MANAGED_BY), keeps(names::LABEL_INSTANCE)) {
            (true, true) => Err(Error::Unseen { kind, name }),
            (true, false) => Ok(()),
            (false, _) => Err(Error::NameTaken { kind, name }),
        }
    }

    /// Changes a Deployment's replicas and when it was stopped. Applying these fields alone would drop all others of
    /// ours, so this is a merge patch.
    async fn scale(&self, scale: &Scale, live: Option<&Deployment>) -> Result<(), Error> {
        let Scale {
            deployment,
            replicas,
            stopped_at,
            dark_at,
            emptied_at,
            inputs,
        } = scale;
        let stopped_at = stopped_at.map(|time| time.to_string());
        let dark_at = dark_at.map(|time| time.to_string());
        let emptied_at = emptied_at.map(|time| time.to_string());
        let mut patch = json!({
            "metadata": {"annotations": {
                names::ANNOTATION_STOPPED_AT: stopped_at,
                names::ANNOTATION_DARK_AT: dark_at,
                names::ANNOTATION_EMPTIED_AT: emptied_at,
            }},
            "spec": {"replicas": replicas},
        });
        if let Some(inputs) = inputs {
            patch["metadata"]["annotations"][names::ANNOTATION_INPUTS] = json!(inputs);
        }
        self.merge(deployment, &patch, live).await
    }

    async fn suspend(&self, suspension: &Suspension, live: Option<&Job>) -> Result<(), Error> {
        let Suspension { job, suspend } = suspension;
        self.merge(job, &json!({"spec": {"suspend": suspend}}), live)
            .await
    }

    async fn merge<K: Owned>(
        &self,
        name: &str,
        patch: &Value,
        live: Option<&K>,
    ) -> Result<(), Error> {
        let Some(live) = live else { return Ok(()) };
        if holds(&encode(live)?, patch) {
            return Ok(());
        }
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let written = self
            .api::<K>()
            .patch(name, &params, &Patch::Merge(patch))
            .await;
        self.metrics.wrote(K::KIND, "merge");
        match written {
            Ok(written) => {
                tracing::info!(kind = K::KIND, name, %patch, "changed");
                self.note(Some(live), &written);
                Ok(())
            }
            // Gone meanwhile: there is nothing left to change.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Apply {
                kind: K::KIND,
                name: name.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    /// Deletes this very object (not a later one of the same name) and what it owns. An object that is already gone is
    /// fine.
    async fn delete<K: Owned>(
        &self,
        name: &str,
        uid: &str,
        params: DeleteParams,
    ) -> Result<(), Error> {
        let uid = Some(uid.to_owned());
        let params = params.preconditions(Preconditions {
            uid,
            resource_version: None,
        });
        let deleted = self.api::<K>().delete(name, &params).await;
        self.metrics.wrote(K::KIND, "delete");
        match deleted {
            Ok(_) => {
                tracing::info!(kind = K::KIND, name, "deleted");
                Ok(())
            }
            // Gone. That the name belongs to a newer object (409) is an error: the next look is at that one.
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(Error::Delete {
                kind: K::KIND,
                name: name.to_owned(),
                source: Box::new(source),
            }),
        }
    }

    fn note<K: Owned>(&self, before: Option<&K>, written: &K) {
        self.own_writes.note(
            (self.namespace, self.model),
            (K::KIND, &written.name_any()),
            before.and_then(K::resource_version),
            written.resource_version(),
            Instant::now(),
        );
    }

    fn api<K: Owned>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.namespace)
    }
}

fn encode<K: Owned>(object: &K) -> Result<Value, Error> {
    serde_json::to_value(object).map_err(|source| Error::Encode {
        kind: K::KIND,
        name: object.name_any(),
        source,
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref());
    let mut conditions = conditions.unwrap_or_default().iter();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

impl Live {
    /// The version that the watches show of one of the model's objects that are written.
    #[must_use]
    pub fn version(&self, kind: &str, name: &str) -> Option<String> {
        fn of<K: Resource>(objects: &[Arc<K>], name: &str) -> Option<String> {
            named(objects, name)?.resource_version()
        }
        match kind {
            Job::KIND => of(&self.jobs, name),
            Deployment::KIND => of(&self.deployments, name),
            PersistentVolumeClaim::KIND => of(&self.claims, name),
            PodDisruptionBudget::KIND => of(&self.budgets, name),
            NetworkPolicy::KIND => of(&self.policies, name),
            Service::KIND => self.service.as_ref()?.resource_version(),
            _ => None,
        }
    }
}

fn named<'a, K: Resource>(objects: &'a [Arc<K>], name: &str) -> Option<&'a K> {
    objects
        .iter()
        .find(|object| object.meta().name.as_deref() == Some(name))
        .map(AsRef::as_ref)
}

/// True if `live` has every value that `intent` names. What others added (defaults, status, their own labels) does not
/// count; a list must have the same length, since an item of ours that was removed from the intent must go.
#[must_use]
pub fn holds(live: &Value, intent: &Value) -> bool {
    match (live, intent) {
        (Value::Object(live), Value::Object(intent)) => intent.iter().all(|(key, wanted)| {
            live.get(key)
                .map_or_else(|| is_empty(wanted), |value| holds(value, wanted))
        }),
        (Value::Array(live), Value::Array(intent)) => {
            live.len() == intent.len()
                && live
                    .iter()
                    .zip(intent)
                    .all(|(live, wanted)| holds(live, wanted))
        }
        (Value::String(live), Value::String(intent)) => {
            live == intent || same_quantity(live, intent)
        }
        _ => live == intent,
    }
}

/// The API server does not store `null`, `{}` and `[]` for optional fields.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The API server stores `1024Mi` as `1Gi`.
fn same_quantity(left: &str, right: &str) -> bool {
    match (spec::parse_quantity(left), spec::parse_quantity(right)) {
        (Some(left), Some(right)) => left == right,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
