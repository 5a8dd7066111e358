//! `GET /v1/models`, and which model a request means. One process serves one model under one or more
//! names. It must not know anything about other models.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use engine::Info;
use serde::Serialize;

use crate::{app::App, error::ApiError};

#[derive(Debug, Serialize)]
pub(crate) struct List {
    object: &'static str,
    data: Vec<Model>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    meta: Meta,
}

/// llama-server's extra object, and the quant.
#[derive(Debug, Serialize)]
struct Meta {
    n_vocab: u32,
    n_ctx: u32,
    n_ctx_train: u32,
    n_params: u64,
    size: u64,
    quant: String,
    architecture: String,
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Result<Json<List>, ApiError> {
    let info = app.engine()?.info();
    let data = app
        .names()
        .into_iter()
        .map(|name| model(name, info))
        .collect();
    Ok(Json(List {
        object: "list",
        data,
    }))
}

pub(crate) async fn one(
    State(app): State<Arc<App>>,
    Path(name): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let info = app.engine()?.info();
    resolve(&app, Some(&name)).map(|name| Json(model(&name, info)))
}

fn model(name: &str, info: &Info) -> Model {
    Model {
        id: name.to_owned(),
        object: "model",
        // OpenAI's creation time of the model; no file says it.
        created: 0,
        owned_by: "kimi-operator",
        meta: Meta {
            n_vocab: info.vocab,
            n_ctx: info.context,
            n_ctx_train: info.trained_context,
            n_params: info.parameters,
            size: info.bytes,
            quant: info.quant.clone(),
            architecture: info.architecture.clone(),
        },
    }
}

/// The name to answer under. A request that names no model means the only one.
pub(crate) fn resolve(app: &App, asked: Option<&str>) -> Result<String, ApiError> {
    let names = app.names();
    match asked {
        None => Ok(names.first().copied().unwrap_or_default().to_owned()),
        Some(asked) if names.contains(&asked) => Ok(asked.to_owned()),
        Some(asked) => Err(ApiError::UnknownModel {
            asked: asked.chars().take(200).collect(),
            known: names.into_iter().map(str::to_owned).collect(),
        }),
    }
}
