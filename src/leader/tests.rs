//! Elections against a stand-in for the API server's Lease, with versions as the real one has them, on a clock that the
//! tests move.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode};
use kube::client::{Body, ClientBuilder};
use serde_json::{Value, json};
use tokio::time::advance;

use super::*;

/// The one Lease there is, as JSON, and every write that was let through.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Value>>>,
    unreachable: Arc<Mutex<bool>>,
    writes: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn client(&self) -> Client {
        Client::new(self.service(), "kimi-system")
    }

    fn service(
        &self,
    ) -> impl tower::Service<
        Request<Body>,
        Response = Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + 'static {
        let server = self.clone();
        tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let bytes = request.into_body().collect().await.unwrap().to_bytes();
                let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
                let (code, body) = server.answer(&method, &path, body);
                let mut response = Response::new(Body::from(body.to_string().into_bytes()));
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                Ok(response)
            }
        })
    }

    fn answer(&self, method: &Method, path: &str, mut body: Value) -> (u16, Value) {
        let status = |code: u16| {
            let reason = match code {
                404 => "NotFound",
                409 => "Conflict",
                _ => "InternalError",
            };
            (
                code,
                json!({"kind": "Status", "status": "Failure", "reason": reason, "message": "x", "code": code}),
            )
        };
        if *self.unreachable.lock().unwrap() {
            return status(500);
        }
        if !path.contains("/namespaces/kimi-system/leases") {
            self.writes.lock().unwrap().push(format!("{method} {path}"));
            return (200, body);
        }
        let mut lease = self.lease.lock().unwrap();
        let version = |lease: &Value| {
            lease["metadata"]["resourceVersion"]
                .as_str()
                .map(str::to_owned)
        };
        let next = match (method, lease.as_ref()) {
            (&Method::GET, Some(lease)) => return (200, lease.clone()),
            (&Method::GET | &Method::PUT, None) => return status(404),
            (&Method::POST, Some(_)) => return status(409),
            (&Method::POST, None) => 1,
            (&Method::PUT, Some(live)) if version(live) == version(&body) => {
                version(live).unwrap().parse::<u32>().unwrap() + 1
            }
            (&Method::PUT, Some(_)) => return status(409),
            other => panic!("{other:?}"),
        };
        body["metadata"]["resourceVersion"] = json!(next.to_string());
        *lease = Some(body.clone());
        (200, body)
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock().unwrap();
        lease.as_ref().unwrap()["spec"]["holderIdentity"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

fn candidate(server: &Server, host: &str) -> Election {
    Election::new(&server.client(), "kimi-operator", host)
}

/// Writes something as an operator does; true if it was let through.
async fn writes(client: &Client) -> bool {
    let jobs: Api<k8s_openapi::api::batch::v1::Job> = Api::namespaced(client.clone(), "llm");
    let patch = json!({"metadata": {"name": "fetch"}});
    let outcome = jobs
        .patch(
            "fetch",
            &Default::default(),
            &kube::api::Patch::Merge(patch),
        )
        .await;
    match outcome {
        Ok(_) => true,
        Err(kube::Error::Service(error)) => {
            assert!(error.is::<Fenced>(), "{error}");
            false
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn one_of_two_wins_and_renews() {
    let server = Server::default();
    let (mut a, mut b) = (candidate(&server, "a"), candidate(&server, "b"));
    assert!(a.attempt().await.unwrap());
    for _ in 0..30 {
        advance(RETRY).await;
        assert!(a.attempt().await.unwrap(), "renewed");
        assert!(!b.attempt().await.unwrap(), "held by another");
        assert!(a.tenure.holds() && !b.tenure.holds());
    }
    assert!(server.holder().starts_with("a_"));
}

#[tokio::test(start_paused = true)]
async fn candidates_that_read_the_same_version_do_not_both_win() {
    let server = Server::default();
    let (mut a, mut b) = (candidate(&server, "a"), candidate(&server, "b"));
    let (first, second) = (
        a.decide(None, Instant::now()),
        b.decide(None, Instant::now()),
    );
    let now = Instant::now();
    assert!(a.write(first, now).await.unwrap());
    assert!(!b.write(second, now).await.unwrap());
    assert!(!b.tenure.holds());
}

/// The leader is frozen for a minute: its process does nothing while the other takes over.
#[tokio::test(start_paused = true)]
async fn a_leader_frozen_for_a_minute_writes_nothing_on_waking() {
    let server = Server::default();
    let (mut a, mut b) = (candidate(&server, "a"), candidate(&server, "b"));
    let fence = |election: &Election| {
        fenced(
            ClientBuilder::new(server.service(), "kimi-system"),
            election.tenure(),
        )
    };
    let (as_a, as_b) = (fence(&a), fence(&b));
    assert!(!writes(&as_a).await, "nobody writes before it has won");
    assert!(a.attempt().await.unwrap());
    assert!(writes(&as_a).await && !writes(&as_b).await);
    let frozen = Instant::now();
    while !b.attempt().await.unwrap() {
        assert!(!(a.tenure.holds() && b.tenure.holds()), "two leaders");
        advance(RETRY).await;
    }
    assert!(frozen.elapsed() >= LEASE && frozen.elapsed() < LEASE + RETRY * 2);
    advance(Duration::from_secs(60) - frozen.elapsed()).await;
    assert!(b.attempt().await.unwrap());
    let before = server.writes.lock().unwrap().len();
    assert!(
        !writes(&as_a).await,
        "the frozen leader wakes and is refused"
    );
    assert_eq!(
        server.writes.lock().unwrap().len(),
        before,
        "nothing was sent"
    );
    assert!(writes(&as_b).await);
    assert_eq!(a.hold().await, Lost::Expired);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_api_server_ends_the_tenure_before_the_lease() {
    let server = Server::default();
    let mut a = candidate(&server, "a");
    assert!(a.attempt().await.unwrap());
    *server.unreachable.lock().unwrap() = true;
    let start = Instant::now();
    assert_eq!(a.hold().await, Lost::Expired);
    assert!(start.elapsed() >= RENEW_WITHIN && start.elapsed() < LEASE);
}

#[tokio::test(start_paused = true)]
async fn a_lease_given_back_is_taken_at_once() {
    let server = Server::default();
    let (mut a, mut b) = (candidate(&server, "a"), candidate(&server, "b"));
    assert!(a.attempt().await.unwrap());
    assert!(!b.attempt().await.unwrap());
    a.release().await;
    assert!(!a.tenure.holds());
    assert!(b.attempt().await.unwrap());
    assert!(server.holder().starts_with("b_"));
    a.release().await;
    assert!(
        server.holder().starts_with("b_"),
        "gives back only what it holds"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lease_edited_or_deleted_by_hand_is_kept() {
    let server = Server::default();
    let mut a = candidate(&server, "a");
    assert!(a.attempt().await.unwrap());
    server.lease.lock().unwrap().as_mut().unwrap()["metadata"]["resourceVersion"] = json!("7");
    assert!(a.attempt().await.unwrap(), "still named as its holder");
    *server.lease.lock().unwrap() = None;
    assert!(a.attempt().await.unwrap(), "made anew");
    let mut taken = server.lease.lock().unwrap().clone().unwrap();
    taken["spec"]["holderIdentity"] = json!("somebody");
    taken["metadata"]["resourceVersion"] = json!("9");
    *server.lease.lock().unwrap() = Some(taken);
    assert_eq!(a.hold().await, Lost::Taken);
    assert!(!a.tenure.holds());
}

/// A write that hangs is given up when the tenure ends, and not before a renewal's new end.
#[tokio::test(start_paused = true)]
async fn a_write_under_way_ends_with_the_tenure() {
    let tenure = Tenure::default();
    let start = Instant::now();
    tenure.extend(start + Duration::from_secs(10));
    let hangs = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    });
    let client = fenced(ClientBuilder::new(hangs, "llm"), tenure.clone());
    let renewal = async {
        sleep(Duration::from_secs(5)).await;
        tenure.extend(start + Duration::from_secs(20));
        std::future::pending::<bool>().await
    };
    let through =
        tokio::select! { through = writes(&client) => through, through = renewal => through };
    assert!(!through);
    assert_eq!(start.elapsed().as_secs(), 20);
}
