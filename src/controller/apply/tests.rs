//! What counts as written, what a refusal is called, and that nothing is written over what was not seen.

use std::convert::Infallible;
use std::sync::Mutex;

use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use kube::client::Body;
use serde_json::json;

use super::*;
use crate::telemetry::Telemetry;

/// An API server with at most one object in it, and the writes that it was sent: method and body.
#[derive(Clone, Default)]
struct Server {
    object: Option<Value>,
    pods: Vec<Value>,
    writes: Arc<Mutex<Vec<(Method, Value)>>>,
}

impl Server {
    fn holding(object: Value) -> Self {
        Self {
            object: Some(object),
            ..Self::default()
        }
    }

    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let method = request.method().clone();
                let of_pods = request.uri().path().ends_with("/pods");
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let (code, body) = match of_pods {
                    true => (
                        200,
                        json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": server.pods}),
                    ),
                    false => server.answer(&method, body),
                };
                let mut response = Response::new(Body::from(body.to_string().into_bytes()));
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "llm")
    }

    /// As the real one: no object, 404; a patch that names another version, a deletion of another UID, or a second
    /// object of the name, 409.
    fn answer(&self, method: &Method, body: Value) -> (u16, Value) {
        let status = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "reason": reason, "message": reason, "code": code}),
            )
        };
        if method != Method::GET {
            self.writes
                .lock()
                .unwrap()
                .push((method.clone(), body.clone()));
        }
        let Some(object) = &self.object else {
            return match *method {
                Method::PATCH | Method::POST => (201, body),
                _ => status(404, "NotFound"),
            };
        };
        if *method == Method::POST {
            return status(409, "AlreadyExists");
        }
        let meta = &object["metadata"];
        let version = &body["metadata"]["resourceVersion"];
        let uid = &body["preconditions"]["uid"];
        if (!version.is_null() && *version != meta["resourceVersion"])
            || (!uid.is_null() && *uid != meta["uid"])
        {
            return status(409, "Conflict");
        }
        match *method {
            Method::DELETE => (200, json!({"kind": "Status", "status": "Success"})),
            _ => (200, object.clone()),
        }
    }

    fn writes(&self) -> usize {
        self.writes.lock().unwrap().len()
    }
}

fn service(version: Option<&str>, instance: &str, selects: &str) -> Service {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "reader", "namespace": "llm", "uid": "u1", "resourceVersion": version, "labels": {
            names::LABEL_MANAGED_BY: FIELD_MANAGER, names::LABEL_INSTANCE: instance}},
        "spec": {"selector": {names::LABEL_WORKLOAD: selects}}}))
    .unwrap()
}

async fn apply_service(server: &Server, live: Option<&Service>) -> Result<(), Error> {
    let (client, telemetry) = (server.client(), Telemetry::new());
    let writer = Writer {
        client: &client,
        namespace: "llm",
        model: "reader",
        metrics: telemetry.metrics(),
        own_writes: &OwnWrites::default(),
    };
    writer.apply(&service(None, "reader", "new"), live).await
}

#[tokio::test]
async fn a_service_is_applied_to_the_version_that_was_seen_or_not_at_all() {
    let server = Server::holding(json!(service(Some("7"), "reader", "old")));
    let seen = service(Some("7"), "reader", "old");
    apply_service(&server, Some(&seen)).await.unwrap();
    let body = server.writes.lock().unwrap()[0].1.clone();
    assert_eq!(body["metadata"]["resourceVersion"], "7", "{body}");

    let stale = service(Some("6"), "reader", "older");
    let error = apply_service(&server, Some(&stale)).await.unwrap_err();
    assert_eq!(error.refusal(), None, "{error}: tried again");
}

#[tokio::test]
async fn what_exists_unseen_is_not_written_over() {
    let ours = Server::holding(json!(service(Some("7"), "reader", "old")));
    let error = apply_service(&ours, None).await.unwrap_err();
    assert!(matches!(error, Error::Unseen { .. }), "{error}");
    assert_eq!((error.refusal(), ours.writes()), (None, 0));

    let foreign = Server::holding(json!({"metadata": {"name": "reader"}}));
    let error = apply_service(&foreign, None).await.unwrap_err();
    assert!(matches!(error, Error::NameTaken { .. }), "{error}");
    assert_eq!(foreign.writes(), 0);

    // No watch will ever show it under this model again unless it gets its label back.
    let relabelled = Server::holding(json!(service(Some("7"), "somebody", "old")));
    apply_service(&relabelled, None).await.unwrap();
    assert_eq!(relabelled.writes(), 1);

    let nothing = Server::default();
    apply_service(&nothing, None).await.unwrap();
    assert_eq!(nothing.writes(), 1);
}

#[tokio::test]
async fn a_job_is_made_once_and_takes_nobody_s_name() {
    let job = |labels: Value| -> Job {
        serde_json::from_value(
            json!({"metadata": {"name": "reader-fetch", "namespace": "llm", "labels": labels}}),
        )
        .unwrap()
    };
    let ours = json!({names::LABEL_MANAGED_BY: FIELD_MANAGER, names::LABEL_INSTANCE: "reader"});
    let intent = job(ours.clone());
    let telemetry = Telemetry::new();
    let create = async |server: &Server| {
        let writer = Writer {
            client: &server.client(),
            namespace: "llm",
            model: "reader",
            metrics: telemetry.metrics(),
            own_writes: &OwnWrites::default(),
        };
        let made = writer.create(&intent).await;
        let methods: Vec<Method> = server
            .writes
            .lock()
            .unwrap()
            .iter()
            .map(|(method, _)| method.clone())
            .collect();
        (made, methods)
    };
    let (made, methods) = create(&Server::default()).await;
    made.unwrap();
    assert_eq!(methods, [Method::POST]);

    let (made, methods) = create(&Server::holding(json!(job(ours)))).await;
    assert!(matches!(made, Err(Error::Unseen { .. })), "{made:?}");
    assert_eq!(methods, [Method::POST]);

    let (made, methods) = create(&Server::holding(json!(job(json!({}))))).await;
    assert!(matches!(made, Err(Error::NameTaken { .. })), "{made:?}");
    assert_eq!(methods, [Method::POST]);

    // Its instance label was edited by hand: it gets it back, or no watch would show it under this model.
    let relabelled =
        json!({names::LABEL_MANAGED_BY: FIELD_MANAGER, names::LABEL_INSTANCE: "somebody"});
    let (made, methods) = create(&Server::holding(json!(job(relabelled)))).await;
    made.unwrap();
    assert_eq!(methods, [Method::POST, Method::PATCH]);
}

/// An API server that gives up on its own conflicts, or a newer object: the next reconcile must come soon, and no event
/// would bring it.
#[tokio::test]
async fn a_conflict_is_tried_again() {
    let server = Server::holding(json!(service(Some("7"), "reader", "old")));
    let (client, telemetry) = (server.client(), Telemetry::new());
    let writer = Writer {
        client: &client,
        namespace: "llm",
        model: "reader",
        metrics: telemetry.metrics(),
        own_writes: &OwnWrites::default(),
    };
    let live = service(Some("6"), "reader", "old");
    let patch = json!({"metadata": {"resourceVersion": "6"}, "spec": {"selector": {"a": "b"}}});
    let error = writer
        .merge("reader", &patch, Some(&live))
        .await
        .unwrap_err();
    assert_eq!(error.refusal(), None, "{error}");

    let gone = DeleteParams::background();
    let deleted = writer.delete::<Service>("reader", "u0", gone.clone()).await;
    assert_eq!(deleted.unwrap_err().refusal(), None);
    writer
        .delete::<Service>("reader", "u1", gone.clone())
        .await
        .unwrap();
    let nothing = Server::default().client();
    let writer = Writer {
        client: &nothing,
        ..writer
    };
    writer
        .delete::<Service>("reader", "u1", gone)
        .await
        .unwrap();
}

#[test]
fn additions_of_others_are_left_alone() {
    let live = json!({
        "metadata": {"name": "a", "uid": "1", "labels": {"ours": "1", "theirs": "2"}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [
            {"name": "server", "image": "x", "terminationMessagePolicy": "File"}]}},
            "resources": {"requests": {"memory": "1Gi"}}},
        "status": {"replicas": 1}
    });
    let intent = json!({
        "metadata": {"name": "a", "labels": {"ours": "1"}, "annotations": {}},
        "spec": {"replicas": 1, "template": {"spec": {"containers": [{"name": "server", "image": "x"}]}},
            "resources": {"requests": {"memory": "1024Mi"}}}
    });
    assert!(holds(&live, &intent));
}

#[test]
fn a_class_that_cannot_expand_is_named() {
    let refused = |message: &str| {
        let status: kube::core::Status = serde_json::from_value(json!({
            "status": "Failure", "reason": "Forbidden", "code": 403, "message": message}))
        .unwrap();
        Error::Apply {
            kind: "PersistentVolumeClaim",
            name: "reader-1".to_owned(),
            source: Box::new(kube::Error::Api(Box::new(status))),
        }
    };
    let claim = |class: Option<&str>| -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {}, "spec": {"storageClassName": class}}))
            .unwrap()
    };
    let words = "persistentvolumeclaims \"reader-1\" is forbidden: only dynamically provisioned pvc can be resized \
                 and the storageclass that provisions the pvc must support resize";
    for (class, wanted) in [
        (Some("slow"), "StorageClass slow"),
        (None, "the default StorageClass"),
    ] {
        let error = refused(words).of_claim(&claim(class));
        assert_eq!(error.refusal().as_deref(), Some("StorageClassCannotExpand"));
        assert!(error.to_string().contains(wanted), "{error}");
    }
    let quota = refused("exceeded quota: storage").of_claim(&claim(None));
    assert_eq!(quota.refusal().as_deref(), Some("InsufficientStorage"));
}

#[test]
fn every_difference_of_ours_is_seen() {
    let live = json!({"spec": {"a": "1", "list": [{"name": "x"}, {"name": "y"}], "on": true}});
    for intent in [
        json!({"spec": {"a": "2"}}),
        json!({"spec": {"b": "1"}}),
        json!({"spec": {"list": [{"name": "x"}]}}),
        json!({"spec": {"list": [{"name": "x"}, {"name": "z"}]}}),
        json!({"spec": {"on": false}}),
        json!({"spec": {"a": 1}}),
    ] {
        assert!(!holds(&live, &intent), "{intent}");
    }
}

fn prepared(service: Service, takes_a_server: bool) -> Resources<Prepared> {
    let deletion = Deletion {
        kind: DeletedKind::Deployment,
        name: "reader-old".to_owned(),
        uid: "u1".to_owned(),
    };
    Resources {
        services: vec![service],
        deletions: takes_a_server.then_some(deletion).into_iter().collect(),
        ..Resources::default()
    }
}

async fn write(
    server: &Server,
    prepared: Resources<Prepared>,
    seen: &Service,
) -> Result<(), Error> {
    let (client, telemetry) = (server.client(), Telemetry::new());
    let writer = Writer {
        client: &client,
        namespace: "llm",
        model: "reader",
        metrics: telemetry.metrics(),
        own_writes: &OwnWrites::default(),
    };
    let live = Live {
        service: Some(Arc::new(seen.clone())),
        ..Live::default()
    };
    writer.write(prepared, &live).await.map(|_| ())
}

/// An old view may take the server that answers for the one that is over.
#[tokio::test]
async fn no_server_goes_while_the_service_is_not_as_it_was_seen() {
    let server = Server::holding(json!(service(Some("7"), "reader", "new")));
    let stale = service(Some("6"), "reader", "new");
    let intent = || prepared(service(None, "reader", "new"), true);
    let error = write(&server, intent(), &stale).await.unwrap_err();
    assert!(matches!(error, Error::Unseen { .. }), "{error}");
    assert_eq!(server.writes(), 0);
    let seen = service(Some("7"), "reader", "new");
    write(&server, intent(), &seen).await.unwrap();
    assert_eq!(server.writes(), 1, "the Deployment went");
}

#[tokio::test]
async fn the_endpoint_moves_to_ready_pods_only() {
    let pod = |ready: &str| json!({"metadata": {"name": "p"}, "status": {"conditions": [{"type": "Ready", "status": ready}]}});
    let seen = service(Some("7"), "reader", "old");
    let mut server = Server::holding(json!(seen));
    for pods in [vec![], vec![pod("False")]] {
        server.pods = pods;
        let intent = prepared(service(None, "reader", "new"), false);
        let error = write(&server, intent, &seen).await.unwrap_err();
        assert!(matches!(error, Error::NotReady { .. }), "{error}");
        assert_eq!(server.writes(), 0);
    }
    server.pods = vec![pod("False"), pod("True")];
    let intent = prepared(service(None, "reader", "new"), false);
    write(&server, intent, &seen).await.unwrap();
    assert_eq!(server.writes(), 1);
}
