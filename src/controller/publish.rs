//! Writes `.status`, and only when it changed; progress at a bounded rate. What is new in it is told in Events, and
//! phases and switches that have just ended are noted as metrics. It must not know how a status comes about.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::runtime::events::{Event, Recorder};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::own_writes::OwnWrites;
use super::status::{differs, events, urgent};
use crate::crd::{KimiModel, KimiModelStatus, Outcome, Timings};
use crate::names::FIELD_MANAGER;
use crate::telemetry::Metrics;

/// What is written, in metrics and among the own writes.
pub const KIND: &str = "KimiModel";

/// Between two statuses of one model that tell of progress only. A short life has a dozen, and of many lives at once
/// they would be most of what the API server does.
const PACE: Duration = Duration::from_secs(1);

/// A status that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the status of {name}: {source}")]
pub struct Error {
    name: String,
    source: Box<kube::Error>,
}

/// Writes what is known of models, and tells what is new.
#[derive(Clone)]
pub struct Publisher {
    client: Client,
    recorder: Recorder,
    metrics: Metrics,
    pace: Arc<Pace>,
}

/// When the models whose status was written within [`PACE`] had theirs, by UID.
#[derive(Debug, Default)]
struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// How long the model's next status has to wait, if it has to.
    fn wait(&self, uid: &str, now: Instant) -> Option<Duration> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(*written.get(uid)?);
        PACE.checked_sub(since).filter(|wait| !wait.is_zero())
    }

    fn wrote(&self, uid: String, now: Instant) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|_, at| now.saturating_duration_since(*at) < PACE);
        written.insert(uid, now);
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Publisher")
    }
}

impl Publisher {
    #[must_use]
    pub fn new(client: Client, metrics: Metrics) -> Self {
        let recorder = Recorder::new(client.clone(), FIELD_MANAGER.into());
        Self {
            client,
            recorder,
            metrics,
            pace: Arc::default(),
        }
    }

    /// Applies the status if it says something new. One that only tells of progress, too soon after the last, is not
    /// written: the answer is then how long to wait before a next look.
    ///
    /// # Errors
    /// The API server's refusal. A model deleted meanwhile is none, and an Event that cannot be told neither.
    pub async fn publish(
        &self,
        model: &KimiModel,
        status: KimiModelStatus,
        own_writes: &OwnWrites,
    ) -> Result<Option<Duration>, Error> {
        let Self {
            client,
            recorder: _,
            metrics,
            pace,
        } = self;
        let previous = model.status.as_ref();
        if !differs(previous, &status) {
            return Ok(None);
        }
        let uid = model.uid().unwrap_or_default();
        if !urgent(previous, &status)
            && let Some(wait) = pace.wait(&uid, Instant::now())
        {
            return Ok(Some(wait));
        }
        measure(previous, &status, metrics);
        let (namespace, name) = (model.namespace().unwrap_or_default(), model.name_any());
        let written = patch(client, &namespace, &name, &json!(status), metrics).await?;
        if written.is_some() {
            let (model, before) = ((&*namespace, &*name), model.resource_version());
            own_writes.note(model, (KIND, &name), before, written, Instant::now());
        }
        pace.wrote(uid, Instant::now());
        // Only once the status stands: a write that has to be repeated would tell twice.
        self.tell(model, &events::news(previous, &status)).await;
        Ok(None)
    }

    /// Says on the object itself that it cannot be read. The words depend on nothing but the object, so saying it again
    /// changes nothing and wakes nobody.
    ///
    /// # Errors
    /// As [`Publisher::publish`].
    pub async fn invalid(&self, object: &InvalidObject) -> Result<(), Error> {
        let meta = &object.metadata;
        let (Some(namespace), Some(name), Some(since)) =
            (&meta.namespace, &meta.name, &meta.creation_timestamp)
        else {
            return Ok(());
        };
        tracing::warn!(
            namespace,
            name,
            error = object.error,
            "a KimiModel cannot be read"
        );
        let condition = |kind: &str, status: &str| Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: "InvalidObject".to_owned(),
            message: format!(
                "the object does not fit this operator's schema: {}",
                object.error
            ),
            observed_generation: meta.generation,
            last_transition_time: Time(since.0),
        };
        let status = json!({
            "observedGeneration": meta.generation,
            "conditions": [condition("Ready", "False"), condition("Stalled", "True")],
        });
        patch(&self.client, namespace, name, &status, &self.metrics).await?;
        Ok(())
    }

    async fn tell(&self, model: &KimiModel, news: &[Event]) {
        let about = model.object_ref(&());
        for event in news {
            let told = self.recorder.publish(event, &about).await;
            self.metrics.wrote("Event", "create");
            if let Err(error) = told {
                tracing::warn!(reason = event.reason, %error, "an Event could not be written");
            }
        }
    }
}

/// The version that it made, if the object is still there.
async fn patch(
    client: &Client,
    namespace: &str,
    name: &str,
    status: &serde_json::Value,
    metrics: &Metrics,
) -> Result<Option<String>, Error> {
    let api: Api<KimiModel> = Api::namespaced(client.clone(), namespace);
    let body = json!({
        "apiVersion": KimiModel::api_version(&()),
        "kind": KimiModel::kind(&()),
        "metadata": {"name": name},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch_status(name, &params, &Patch::Apply(&body)).await;
    metrics.wrote(KIND, "status");
    match written {
        Ok(written) => Ok(written.resource_version()),
        // Deleted since the watch saw it.
        Err(kube::Error::Api(refusal)) if refusal.code == 404 => Ok(None),
        Err(source) => Err(Error {
            name: name.to_owned(),
            source: Box::new(source),
        }),
    }
}

/// Observes what the new status knows and the previous one did not. A deleted status may count a phase twice; that
/// costs a sample, and remembering it elsewhere would cost memory per model.
fn measure(previous: Option<&KimiModelStatus>, status: &KimiModelStatus, metrics: &Metrics) {
    let Some(previous) = previous else { return };
    let same_artifact = previous.artifact.as_ref().map(|artifact| &artifact.id)
        == status.artifact.as_ref().map(|artifact| &artifact.id);
    let before = previous
        .timings
        .clone()
        .filter(|_| same_artifact)
        .unwrap_or_default();
    let Timings {
        inspect_seconds,
        fetch_seconds,
        load_seconds,
    } = status.timings.clone().unwrap_or_default();
    for (phase, before, now) in [
        ("inspect", before.inspect_seconds, inspect_seconds),
        ("fetch", before.fetch_seconds, fetch_seconds),
        ("load", before.load_seconds, load_seconds),
    ] {
        if let (None, Some(seconds)) = (before, now) {
            metrics.phase(phase, seconds as f64);
        }
    }
    if let Some(switch) = &status.last_switch
        && previous.last_switch.as_ref() != Some(switch)
        && switch.from.is_some()
    {
        metrics.switched(switch.outage_seconds as f64);
    }
    if let Some(entry) = status.history.first()
        && previous.history.first().map(|before| before.time) != Some(entry.time)
        && entry.outcome == Outcome::RolledBack
    {
        metrics.rolled_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_written_just_now_waits_and_is_remembered() {
        let (pace, start) = (Pace::default(), Instant::now());
        assert_eq!(pace.wait("a", start), None);
        pace.wrote("a".to_owned(), start);
        assert_eq!(pace.wait("a", start), Some(PACE));
        assert_eq!(pace.wait("b", start), None);
        assert_eq!(pace.wait("a", start + PACE / 4), Some(PACE * 3 / 4));
        assert_eq!(pace.wait("a", start + PACE), None);
        pace.wrote("b".to_owned(), start + PACE);
        let remembered = pace.0.lock().unwrap_or_else(PoisonError::into_inner).len();
        assert_eq!(remembered, 1, "memory of models that come and go");
    }
}
