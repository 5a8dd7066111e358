//! The permission table holds exactly what the operator asks the API server for: every watch, every kind of write and
//! the status are run against a recording stand-in for the API server, and both lists must be equal.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use futures::channel::mpsc;
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use kimi_operator::controller::apply::Writer;
use kimi_operator::controller::build::{DeletedKind, Deletion, Resources, Scale, Suspension};
use kimi_operator::controller::observe::{Live, observe};
use kimi_operator::controller::own_writes::OwnWrites;
use kimi_operator::controller::progress::Poller;
use kimi_operator::controller::publish::Publisher;
use kimi_operator::controller::watch::{Stores, wait_for_crd};
use kimi_operator::crd::{KimiModel, KimiModelStatus};
use kimi_operator::leader::Election;
use kimi_operator::rbac::RULES;
use kimi_operator::telemetry::Telemetry;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// (API group, resource with its subresource, verb).
type Right = (String, String, String);
type Rights = Arc<Mutex<BTreeSet<Right>>>;

/// The right that a request needs, in the words of the Kubernetes authorizer.
fn right(request: &Request<Body>) -> Right {
    let segments: Vec<&str> = request.uri().path().trim_matches('/').split('/').collect();
    let (group, rest) = match segments.as_slice() {
        ["api", "v1", rest @ ..] => ("", rest),
        ["apis", group, _version, rest @ ..] => (*group, rest),
        other => panic!("not an API path: {other:?}"),
    };
    let rest = match rest {
        ["namespaces", _, rest @ ..] if !rest.is_empty() => rest,
        rest => rest,
    };
    let (resource, named) = match rest {
        [resource] => ((*resource).to_owned(), false),
        [resource, _name] => ((*resource).to_owned(), true),
        [resource, _name, sub] => (format!("{resource}/{sub}"), true),
        other => panic!("not a resource path: {other:?}"),
    };
    let watch = request
        .uri()
        .query()
        .unwrap_or_default()
        .contains("watch=true");
    let verb = match (request.method(), named) {
        (&Method::GET, true) => "get",
        (&Method::GET, false) if watch => "watch",
        (&Method::GET, false) => "list",
        (&Method::POST, false) => "create",
        (&Method::PUT, true) => "update",
        (&Method::PATCH, true) => "patch",
        (&Method::DELETE, true) => "delete",
        other => panic!("unexpected request {other:?}"),
    };
    (group.to_owned(), resource, verb.to_owned())
}

/// A client whose API server has no object, accepts every write and notes what it was asked.
fn recorder(rights: &Rights) -> Client {
    let rights = Arc::clone(rights);
    let service = tower::service_fn(move |request: Request<Body>| {
        let rights = Arc::clone(&rights);
        async move {
            let (group, resource, verb) = right(&request);
            let is_status = resource == "kimimodels/status";
            let asked = (group.clone(), resource.clone(), verb.clone());
            rights.lock().unwrap().insert(asked);
            let is_apply = request
                .headers()
                .get("content-type")
                .is_some_and(|kind| kind.as_bytes().starts_with(b"application/apply-patch"));
            if is_apply && !resource.contains('/') {
                // Applying what does not exist creates it.
                let made = (group, resource.clone(), "create".to_owned());
                rights.lock().unwrap().insert(made);
            }
            let (status, body) = match verb.as_str() {
                "list" => (
                    200,
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}),
                ),
                "get" => (
                    404,
                    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "none", "code": 404}),
                ),
                "delete" => (
                    200,
                    json!({"kind": "Status", "status": "Success", "code": 200}),
                ),
                // The name is taken, so that it is looked at by whom; by then it is free again.
                "create" if resource == "jobs" => (
                    409,
                    json!({"kind": "Status", "status": "Failure", "reason": "AlreadyExists", "message": "there", "code": 409}),
                ),
                "create" | "update" | "patch" => {
                    let bytes = request.into_body().collect().await.unwrap().to_bytes();
                    let mut object: Value = serde_json::from_slice(&bytes).unwrap();
                    if is_status {
                        object["spec"] = spec();
                    }
                    (200, object)
                }
                _ => (200, Value::Null),
            };
            let body = if verb == "watch" {
                Body::empty()
            } else {
                Body::from(body.to_string().into_bytes())
            };
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            Ok::<_, Infallible>(response)
        }
    });
    Client::new(service, "llm")
}

fn spec() -> Value {
    let key = json!({"configMapKeyRef": {"name": "kimi", "key": "QUANT_TYPE"}});
    json!({"model": "Kimi-K2-Instruct", "quantFrom": key, "hardware": "CPU"})
}

/// An object with the least that its kind needs.
fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

#[tokio::test]
async fn the_table_is_what_the_operator_asks_for() {
    let rights = Rights::default();
    let client = recorder(&rights);
    let telemetry = Telemetry::new();
    let metrics = telemetry.metrics();

    let (queue, _changes) = mpsc::unbounded();
    let mut tasks = JoinSet::new();
    wait_for_crd(&client, None).await;
    let stores = Stores::start(&client, None, &queue, &mut tasks);
    stores.wait_until_ready().await;
    let watches = || {
        rights
            .lock()
            .unwrap()
            .iter()
            .filter(|(_, _, verb)| verb == "watch")
            .count()
    };
    while watches() < 11 {
        tokio::task::yield_now().await;
    }
    tasks.shutdown().await;

    let meta = json!({"name": "kimi", "namespace": "llm"});
    let live = Live {
        jobs: vec![Arc::new(object(
            json!({"metadata": {"name": "old"}, "spec": {"template": {}}}),
        ))],
        deployments: vec![Arc::new(object(
            json!({"metadata": {"name": "old"}, "spec": {"replicas": 1, "selector": {}, "template": {}}}),
        ))],
        ..Live::default()
    };
    let deletion = |kind| Deletion {
        kind,
        name: "old".to_owned(),
        uid: "1".to_owned(),
    };
    let prepared = Resources {
        claims: vec![object(json!({"metadata": meta}))],
        jobs: vec![object(json!({"metadata": meta, "spec": {"template": {}}}))],
        deployments: vec![object(
            json!({"metadata": meta, "spec": {"selector": {}, "template": {}}}),
        )],
        scales: vec![Scale {
            deployment: "old".to_owned(),
            replicas: 0,
            stopped_at: Some(jiff::Timestamp::UNIX_EPOCH),
            dark_at: Some(jiff::Timestamp::UNIX_EPOCH),
            emptied_at: Some(jiff::Timestamp::UNIX_EPOCH),
            inputs: None,
        }],
        services: vec![object(json!({"metadata": meta}))],
        budgets: vec![object(json!({"metadata": meta}))],
        policies: vec![object(json!({"metadata": meta}))],
        suspensions: vec![Suspension {
            job: "old".to_owned(),
            suspend: true,
        }],
        deletions: vec![
            deletion(DeletedKind::Job),
            deletion(DeletedKind::Deployment),
            deletion(DeletedKind::Claim),
            deletion(DeletedKind::Budget),
            deletion(DeletedKind::Policy),
        ],
        ..Resources::default()
    };
    let own_writes = OwnWrites::default();
    let writer = Writer {
        client: &client,
        namespace: "llm",
        model: "reader",
        metrics,
        own_writes: &own_writes,
    };
    writer.write(prepared, &live).await.unwrap();

    let model: KimiModel = object(json!({
        "apiVersion": "kimioperator.dev/v1alpha1", "kind": "KimiModel", "metadata": meta,
        "spec": spec()
    }));
    let poller = Poller::default();
    observe(&client, &model, &mut Live::default(), &poller, metrics)
        .await
        .unwrap();
    let publisher = Publisher::new(client.clone(), metrics.clone());
    let stalled = json!({
        "type": "Stalled", "status": "True", "reason": "DoesNotFit", "message": "too large",
        "lastTransitionTime": "2026-01-01T00:00:00Z"
    });
    let status: KimiModelStatus = object(json!({"conditions": [stalled]}));
    // Told twice, it is counted in the one Event.
    for _ in 0..2 {
        let published = publisher.publish(&model, status.clone(), &own_writes);
        published.await.unwrap();
    }

    let mut election = Election::new(&client, "kimi-operator", "host");
    election.campaign().await;
    election.release().await;

    let asked = rights.lock().unwrap().clone();
    let granted: BTreeSet<Right> = RULES
        .iter()
        .flat_map(|rule| {
            rule.verbs.iter().map(|verb| {
                (
                    rule.group.to_owned(),
                    rule.resource.to_owned(),
                    (*verb).to_owned(),
                )
            })
        })
        .collect();
    let missing: Vec<_> = asked.difference(&granted).collect();
    let unused: Vec<_> = granted.difference(&asked).collect();
    assert!(
        missing.is_empty(),
        "the operator needs what the table does not grant: {missing:?}"
    );
    assert!(
        unused.is_empty(),
        "the table grants what the operator never asks for: {unused:?}"
    );
}
