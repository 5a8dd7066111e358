//! `kimi-operator check`: is an installation alive? The API server serves KimiModels to this account, and an operator
//! renews its Lease. `helm test` runs it in the cluster. It must change nothing.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, ListParams};
use tokio::time::sleep;

use crate::crd::KimiModel;

/// A leader renews every two seconds.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_secs(2);

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "KimiModels cannot be listed: {0}; is the CRD installed, and may this account list them?"
    )]
    Models(#[source] Box<kube::Error>),
    #[error("the Lease {name} cannot be read: {source}")]
    Lease {
        name: String,
        source: Box<kube::Error>,
    },
    #[error("nobody renews the Lease {0}: see the operator's logs")]
    NobodyLeads(String),
}

/// Looks for as long as a renewal takes. Returns who leads.
///
/// # Errors
/// What is wrong, see [`Error`].
pub async fn check(client: &Client, namespace: Option<&str>, lease: &str) -> Result<String, Error> {
    let models: Api<KimiModel> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    models
        .list_metadata(&ListParams::default().limit(1))
        .await
        .map_err(|source| Error::Models(Box::new(source)))?;
    let leases: Api<Lease> = Api::default_namespaced(client.clone());
    let mut first = None;
    for _ in 0..LOOKS {
        let found = leases.get_opt(lease).await.map_err(|source| Error::Lease {
            name: lease.to_owned(),
            source: Box::new(source),
        })?;
        let spec = found.and_then(|lease| lease.spec).unwrap_or_default();
        let holder = spec.holder_identity.filter(|holder| !holder.is_empty());
        // The time is compared with itself only: the clocks of two Nodes may differ.
        if let (Some(holder), Some(renewed)) = (holder, spec.renew_time) {
            match &first {
                Some(before) if *before != renewed => return Ok(holder),
                Some(_) => {}
                None => first = Some(renewed),
            }
        }
        sleep(PAUSE).await;
    }
    Err(Error::NobodyLeads(lease.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::convert::Infallible;
    use std::sync::atomic::{AtomicU32, Ordering};

    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A cluster whose Lease is renewed at every look, or never.
    fn client(renewed: bool) -> Client {
        let looks = AtomicU32::new(0);
        let service = tower::service_fn(move |request: Request<Body>| {
            let body = if request.uri().path().contains("/leases/") {
                let second = if renewed {
                    looks.fetch_add(1, Ordering::Relaxed)
                } else {
                    0
                };
                json!({"metadata": {"name": "kimi-operator"}, "spec": {
                    "holderIdentity": "a", "renewTime": format!("2026-01-01T00:00:{second:02}.000000Z")}})
            } else {
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []})
            };
            let response = Response::new(Body::from(body.to_string().into_bytes()));
            std::future::ready(Ok::<_, Infallible>(response))
        });
        Client::new(service, "kimi-system")
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewed_lease_is_a_living_operator() {
        let holder = check(&client(true), None, "kimi-operator").await.unwrap();
        assert_eq!(holder, "a");
        let dead = check(&client(false), Some("llm"), "kimi-operator").await;
        assert!(matches!(dead, Err(Error::NobodyLeads(_))), "{dead:?}");
    }
}
