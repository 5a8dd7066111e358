//! The gauges over all models: conditions, downloads, orphans. It reads the watches' memory only, and must decide nothing.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

use super::status::TYPES;
use super::watch::Stores;
use crate::orphans;
use crate::telemetry::{ModelCounts, Telemetry};

/// How often they are counted.
const INTERVAL: Duration = Duration::from_secs(15);
/// Values of a condition's status.
const STATUSES: [&str; 3] = ["True", "False", "Unknown"];

/// Counts for as long as the task lives.
pub(super) async fn keep(stores: Stores, telemetry: Arc<Telemetry>) {
    loop {
        let models = stores.models.state();
        let conditions = models.iter().map(|model| {
            let model = model.0.as_ref().ok();
            let status = model.and_then(|model| model.status.as_ref());
            status.map_or(&[][..], |status| &status.conditions)
        });
        telemetry.metrics().models(&count(conditions));
        let living = models.iter().filter_map(|model| model.uid()).collect();
        let orphans = orphans::find(stores.claims.state().iter().map(AsRef::as_ref), &living);
        let bytes = orphans.iter().map(|orphan| orphan.bytes).sum();
        telemetry.metrics().orphans(orphans.len(), bytes);
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Models by condition and status, a missing condition being unknown, and models that download.
fn count<'a>(models: impl Iterator<Item = &'a [Condition]>) -> ModelCounts {
    let mut counts = ModelCounts::default();
    for kind in TYPES {
        for status in STATUSES {
            counts.conditions.insert((kind, status), 0);
        }
    }
    for conditions in models {
        for kind in TYPES {
            let condition = conditions.iter().find(|condition| condition.type_ == kind);
            let status = condition.map_or("Unknown", |condition| condition.status.as_str());
            let status = STATUSES.into_iter().find(|word| *word == status);
            let count = status.and_then(|status| counts.conditions.get_mut(&(kind, status)));
            if let Some(count) = count {
                *count += 1;
            }
        }
        let downloads = |condition: &Condition| {
            condition.type_ == "Reconciling"
                && condition.status == "True"
                && condition.reason == "Downloading"
        };
        counts.downloading += usize::from(conditions.iter().any(downloads));
    }
    counts
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(crate::testing::epoch()),
        }
    }

    #[test]
    fn every_model_counts_once_for_each_condition() {
        let fetching = [
            condition("Ready", "Unknown", "Downloading"),
            condition("Reconciling", "True", "Downloading"),
        ];
        let serving = [
            condition("Ready", "True", "Serving"),
            condition("Reconciling", "False", "Settled"),
            condition("SomebodyElses", "True", "X"),
        ];
        let counts = count([&fetching[..], &serving[..], &[]].into_iter());
        assert_eq!(counts.downloading, 1);
        let of = |kind, status| counts.conditions.get(&(kind, status)).copied();
        assert_eq!(of("Ready", "True"), Some(1));
        assert_eq!(of("Ready", "Unknown"), Some(2));
        assert_eq!(of("Stalled", "Unknown"), Some(3));
        assert_eq!(of("SomebodyElses", "True"), None);
    }
}
