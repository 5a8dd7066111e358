//! Metadata routes: model info and the paginated tree. Knows the hub's JSON, not how bytes are served.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::header::{LINK, LOCATION};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::errors::Refusal;
use crate::faults::Place;
use crate::repo::{Entry, Repo};
use crate::state::Shared;

/// Every file has one made-up date: answers depend on content only.
const DATE: &str = "2025-01-01T00:00:00.000Z";

type Answer = Result<Response, Refusal>;

/// `GET /api/models/OWNER/REPO`
pub(crate) async fn info(
    state: State<Arc<Shared>>,
    Path((owner, repo)): Path<(String, String)>,
    query: Query<InfoQuery>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    info_at(
        state,
        Path((owner, repo, "main".into())),
        query,
        uri,
        headers,
    )
    .await
}

#[derive(Debug, Deserialize)]
pub(crate) struct InfoQuery {
    /// Adds size and ids to each sibling.
    #[serde(default)]
    blobs: Option<String>,
}

/// `GET /api/models/OWNER/REPO/revision/REVISION`
pub(crate) async fn info_at(
    State(hub): State<Arc<Shared>>,
    Path((owner, repo, revision)): Path<(String, String, String)>,
    Query(query): Query<InfoQuery>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let name = format!("{owner}/{repo}");
    if let Some(moved) = before(&hub, &name, &uri)? {
        return Ok(moved);
    }
    let found = hub.repo(&name, &revision, &headers).await?;
    let gated = hub.config.gated.contains(&name);
    let siblings: Vec<Value> = found
        .files
        .iter()
        .map(|(path, file)| sibling(path, file, query.blobs.is_some()))
        .collect();
    let body = json!({
        "_id": &found.commit[..24], "id": name, "modelId": name, "author": owner, "sha": found.commit,
        "lastModified": DATE, "createdAt": DATE, "private": hub.config.private.contains(&name),
        "gated": if gated { json!("auto") } else { json!(false) },
        "disabled": false, "downloads": 0, "likes": 0, "tags": ["gguf"], "siblings": siblings,
        "usedStorage": found.files.values().map(|file| file.size).sum::<u64>(),
    });
    Ok(Json(body).into_response())
}

fn sibling(path: &str, file: &Entry, blobs: bool) -> Value {
    let mut value = json!({ "rfilename": path });
    if blobs {
        value["size"] = json!(file.size);
        value["blobId"] = json!(file.oid);
        if let Some((sha256, pointer)) = &file.lfs {
            value["lfs"] = json!({ "sha256": sha256, "size": file.size, "pointerSize": pointer });
        }
    }
    value
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct TreeQuery {
    #[serde(default)]
    recursive: Option<String>,
    #[serde(default)]
    expand: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<usize>,
}

fn on(flag: Option<&String>) -> bool {
    flag.is_some_and(|value| matches!(value.to_ascii_lowercase().as_str(), "true" | "1"))
}

/// `GET /api/models/OWNER/REPO/tree/REVISION`
pub(crate) async fn tree(
    state: State<Arc<Shared>>,
    Path((owner, repo, revision)): Path<(String, String, String)>,
    query: Query<TreeQuery>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    tree_below(
        state,
        Path((owner, repo, revision, String::new())),
        query,
        uri,
        headers,
    )
    .await
}

/// `GET /api/models/OWNER/REPO/tree/REVISION/PATH`
pub(crate) async fn tree_below(
    State(hub): State<Arc<Shared>>,
    Path((owner, repo, revision, below)): Path<(String, String, String, String)>,
    Query(query): Query<TreeQuery>,
    uri: Uri,
    headers: HeaderMap,
) -> Answer {
    let name = format!("{owner}/{repo}");
    if let Some(moved) = before(&hub, &name, &uri)? {
        return Ok(moved);
    }
    let found = hub.repo(&name, &revision, &headers).await?;
    let below = below.trim_matches('/');
    let entries = entries(
        &found,
        below,
        on(query.recursive.as_ref()),
        on(query.expand.as_ref()),
    );
    if entries.is_empty() && !below.is_empty() {
        return Err(Refusal::entry_not_found());
    }
    let start = query.cursor.unwrap_or(0).min(entries.len());
    let page = query
        .limit
        .unwrap_or(usize::MAX)
        .clamp(1, hub.config.page_size.max(1));
    let end = start.saturating_add(page).min(entries.len());
    let mut response = Json(&entries[start..end]).into_response();
    if end < entries.len() {
        let kept = ["recursive", "expand", "limit"].iter().zip([
            query.recursive.clone(),
            query.expand.clone(),
            query.limit.map(|limit| limit.to_string()),
        ]);
        let kept: String = kept
            .filter_map(|(key, value)| Some(format!("{key}={}&", value?)))
            .collect();
        let next = format!(
            "<{}{}?{kept}cursor={end}>; rel=\"next\"",
            hub.public_url(&headers),
            uri.path()
        );
        if let Ok(value) = HeaderValue::from_str(&next) {
            response.headers_mut().insert(LINK, value);
        }
    }
    Ok(response)
}

/// Files and directories below `below`, in path order; without `recursive` only its direct children.
fn entries(repo: &Repo, below: &str, recursive: bool, expand: bool) -> Vec<Value> {
    let prefix = if below.is_empty() {
        String::new()
    } else {
        format!("{below}/")
    };
    let mut directories = BTreeSet::new();
    let mut values = Vec::new();
    let commit = json!({ "id": repo.commit, "title": "Upload", "date": DATE });
    for (path, file) in &repo.files {
        let Some(rest) = path.strip_prefix(&prefix) else {
            continue;
        };
        for (at, _) in rest.match_indices('/') {
            directories.insert(path[..prefix.len() + at].to_owned());
            if !recursive {
                break;
            }
        }
        if recursive || !rest.contains('/') {
            let mut value =
                json!({ "type": "file", "oid": file.oid, "size": file.size, "path": path });
            if let Some((sha256, pointer)) = &file.lfs {
                value["lfs"] = json!({ "oid": sha256, "size": file.size, "pointerSize": pointer });
            }
            values.push(value);
        }
    }
    let empty_tree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904";
    values.extend(
        directories
            .iter()
            .map(|d| json!({ "type": "directory", "oid": empty_tree, "size": 0, "path": d })),
    );
    values.sort_by(|a, b| a["path"].as_str().cmp(&b["path"].as_str()));
    if expand {
        values
            .iter_mut()
            .for_each(|value| value["lastCommit"] = commit.clone());
    }
    values
}

/// Counts the request, acts out an injected status, and redirects renamed repositories.
fn before(hub: &Shared, name: &str, uri: &Uri) -> Result<Option<Response>, Refusal> {
    hub.count(|stats| stats.api += 1);
    if let Some(refusal) = hub
        .take_fault(Place::Api, uri.path())
        .as_ref()
        .and_then(Refusal::injected)
    {
        return Err(refusal);
    }
    Ok(moved(hub, name, uri))
}

/// The hub's redirect for a renamed repository: 307, relative, path and query kept.
pub(crate) fn moved(hub: &Shared, name: &str, uri: &Uri) -> Option<Response> {
    let (_, new) = hub.config.renamed.iter().find(|(old, _)| old == name)?;
    let target = uri.path_and_query()?.as_str().replacen(name, new, 1);
    Some((StatusCode::TEMPORARY_REDIRECT, [(LOCATION, target)]).into_response())
}
