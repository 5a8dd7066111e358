//! `resolve`: where a file's metadata is read from headers and where LFS content is handed over to the second
//! authority by a signed URL. Small files that live in git are answered in place.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::header::{CONTENT_LENGTH, ETAG, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};

use crate::api::moved;
use crate::body;
use crate::errors::Refusal;
use crate::faults::Place;
use crate::state::{Shared, sign};

const COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");

/// `HEAD|GET /OWNER/REPO/resolve/REVISION/PATH`
pub(crate) async fn resolve(
    State(hub): State<Arc<Shared>>,
    Path((owner, repo, revision, path)): Path<(String, String, String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    hub.count(|stats| stats.resolve += 1);
    let fault = hub.take_fault(Place::Resolve, &path);
    if let Some(refusal) = fault.as_ref().and_then(Refusal::injected) {
        return Err(refusal);
    }
    let name = format!("{owner}/{repo}");
    if let Some(moved) = moved(&hub, &name, &uri) {
        return Ok(moved);
    }
    let found = hub.repo(&name, &revision, &headers).await?;
    hub.check_gate(&name, &headers)?;
    let file = found
        .files
        .get(&path)
        .ok_or_else(Refusal::entry_not_found)?;
    let mut response = match &file.lfs {
        Some((sha256, _)) => {
            // Percent signs and the like are signed as the client will send them.
            let blob = format!(
                "/blob/{}",
                uri.path()
                    .trim_start_matches('/')
                    .replacen(&format!("/resolve/{revision}"), "", 1)
            );
            let expires = hub.expiry();
            let location = format!(
                "{}{blob}?Expires={expires}&Signature={}",
                hub.cdn_url(&headers),
                sign(&blob, expires)
            );
            let linked = [
                (LINKED_ETAG, format!("\"{sha256}\"")),
                (LINKED_SIZE, file.size.to_string()),
            ];
            (StatusCode::FOUND, [(LOCATION, location)], linked).into_response()
        }
        None if method == Method::HEAD => [(CONTENT_LENGTH, file.size.to_string())].into_response(),
        None => body::send(&hub, &path, file, &headers, None)?,
    };
    let etag = file.lfs.as_ref().map_or(&file.oid, |(sha256, _)| sha256);
    for (name, value) in [
        (COMMIT, found.commit.clone()),
        (ETAG, format!("\"{etag}\"")),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}
