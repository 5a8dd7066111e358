//! The Service: the stable endpoint. Its selector says which workload is active, and nothing else does. It must know
//! nothing about the pods behind it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::assess::Target;
use super::super::plan::{Decision, Step, history};
use super::super::validate::ValidModel;
use super::Error;
use crate::names::{self, Component};
use crate::snapshot::{Selected, Snapshot};

/// The Service. It is made early, selecting nothing, so that its address stands before the first server does.
///
/// # Errors
/// When the last switch cannot be written as JSON, which is a bug.
pub fn build(
    model: &ValidModel,
    target: Option<&Target>,
    decision: &Decision,
    snapshot: &Snapshot,
) -> Result<Service, Error> {
    let live = snapshot.service.as_ref();
    let kept = match live {
        Some(service) => service.selected.as_deref(),
        None => snapshot.active().map(|active| active.id.as_str()),
    };
    let mut metadata = super::metadata(model, model.name.clone(), Component::Server);
    let mut note = |key: &str, text: String| {
        let annotations = metadata.annotations.get_or_insert_default();
        annotations.insert(key.to_owned(), text);
    };
    let mut selected = kept.unwrap_or(names::NO_WORKLOAD);
    let mut leads_to = live.and_then(|service| service.leads_to.clone());
    let mut switch = live.and_then(|service| service.last_switch.clone());
    let mut entries = live.map_or_else(Vec::new, |service| service.history.clone());
    let mut given_up = live.and_then(|service| service.given_up.as_ref());
    match (&decision.step, target) {
        (Step::Flip { entry }, Some(target)) => {
            selected = target.workload.as_str();
            leads_to = Some(Selected {
                workload: target.workload.clone(),
                artifact: target.artifact.clone(),
                quant: target.facts.quant.clone(),
                inputs: Some(target.inputs.clone()),
            });
            switch = Some(entry.into());
            entries = history::with(entry, &entries);
            given_up = None;
        }
        (Step::GiveUp { record, entry }, _) => {
            entries = history::with(entry, &entries);
            given_up = Some(record);
        }
        // What serves is what was asked for: whatever was given up before may be tried again.
        (Step::Serving, _) if given_up.is_some() => {
            given_up = None;
            note(
                names::ANNOTATION_GIVEN_UP,
                names::NOTHING_GIVEN_UP.to_owned(),
            );
        }
        _ => {}
    }
    if let (Some(leads_to), Some(target)) = (&mut leads_to, target)
        && leads_to.workload == target.workload
    {
        // Words that change no template change no workload.
        leads_to.inputs = Some(target.inputs.clone());
    }
    if let Some(leads_to) = &leads_to {
        note(
            names::ANNOTATION_SELECTED,
            super::json("selected workload", leads_to)?,
        );
    }
    if let Some(switch) = &switch {
        note(
            names::ANNOTATION_SWITCH,
            super::json("last switch", switch)?,
        );
    }
    if !entries.is_empty() {
        note(names::ANNOTATION_HISTORY, super::json("history", &entries)?);
    }
    if let Some(record) = given_up {
        note(names::ANNOTATION_GIVEN_UP, super::json("rollback", record)?);
    }
    Ok(Service {
        metadata,
        spec: Some(ServiceSpec {
            selector: Some(selector(&model.name, selected)),
            ports: Some(vec![ServicePort {
                name: Some("http".to_owned()),
                app_protocol: Some("http".to_owned()),
                protocol: Some("TCP".to_owned()),
                port: i32::from(model.port),
                target_port: Some(IntOrString::String("http".to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    })
}

/// Labels that select the pods of one workload of one model.
pub(super) fn selector(model: &str, workload: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::LABEL_INSTANCE.to_owned(), model.to_owned()),
        (
            names::LABEL_COMPONENT.to_owned(),
            Component::Server.as_str().to_owned(),
        ),
        (names::LABEL_WORKLOAD.to_owned(), workload.to_owned()),
    ])
}
