//! The Service: the stable endpoint. Its selector says which workload is active, and nothing else does. It must know
//! nothing about the pods behind it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::super::assess::Target;
use super::super::plan::{Decision, Step};
use super::super::validate::ValidModel;
use super::Error;
use crate::names::{self, Component};
use crate::snapshot::Snapshot;

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
    let (selected, switch) = match (&decision.step, target) {
        (Step::Flip { switch }, Some(target)) => (target.workload.as_str(), Some(switch)),
        _ => (
            kept.unwrap_or(names::NO_WORKLOAD),
            live.and_then(|service| service.last_switch.as_ref()),
        ),
    };
    let mut metadata = super::metadata(model, model.name.clone(), Component::Server);
    if let Some(switch) = switch {
        let text = super::json("last switch", switch)?;
        metadata
            .annotations
            .get_or_insert_default()
            .insert(names::ANNOTATION_SWITCH.to_owned(), text);
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
