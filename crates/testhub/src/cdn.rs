//! The second authority: signed, expiring URLs to file content. Like an object store it refuses a request that brings
//! an `Authorization` header of its own, and it counts such requests, because each is a leaked token.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, Uri};
use axum::response::Response;
use serde::Deserialize;

use crate::body;
use crate::errors::Refusal;
use crate::faults::{Fault, Place};
use crate::state::{Shared, sign, unix_seconds};

#[derive(Debug, Deserialize)]
pub(crate) struct Signed {
    #[serde(rename = "Expires")]
    expires: u64,
    #[serde(rename = "Signature")]
    signature: String,
}

/// `GET /blob/OWNER/REPO/PATH?Expires=..&Signature=..`
pub(crate) async fn blob(
    State(hub): State<Arc<Shared>>,
    Path((owner, name, path)): Path<(String, String, String)>,
    Query(signed): Query<Signed>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    hub.count(|stats| stats.cdn += 1);
    if headers.contains_key(AUTHORIZATION) {
        hub.count(|stats| stats.authorization_on_cdn += 1);
        return Err(Refusal::two_authentications());
    }
    let fault = hub.take_fault(Place::Cdn, &path);
    if let Some(refusal) = fault.as_ref().and_then(Refusal::injected) {
        return Err(refusal);
    }
    let valid =
        signed.signature == sign(uri.path(), signed.expires) && unix_seconds() < signed.expires;
    if !valid || fault == Some(Fault::Expired) {
        return Err(Refusal::expired());
    }
    let repo = hub.stored(&format!("{owner}/{name}")).await?;
    let file = repo.files.get(&path).ok_or_else(Refusal::entry_not_found)?;
    body::send(&hub, &path, file, &headers, fault)
}
