//! `GET /props` and `GET /slots`: how the model is served and what its slots are doing, in llama-server's
//! form. It must not know requests.

use std::sync::Arc;

use axum::{Json, extract::State};
use engine::{Sampling, SlotStatus};
use serde::Serialize;

use crate::{app::App, error::ApiError};

#[derive(Debug, Serialize)]
pub(crate) struct Props {
    default_generation_settings: Settings,
    total_slots: usize,
    model_alias: String,
    model_quant: String,
    chat_template: Option<String>,
    bos_token: Option<String>,
    eos_token: Option<String>,
    modalities: Modalities,
    build_info: &'static str,
}

#[derive(Debug, Serialize)]
struct Settings {
    n_ctx: u32,
    params: Params,
}

/// What a request gets that says nothing about sampling.
#[derive(Debug, Serialize)]
struct Params {
    temperature: f32,
    top_k: u32,
    top_p: f32,
    min_p: f32,
    repetition_penalty: f32,
    presence_penalty: f32,
    frequency_penalty: f32,
}

#[derive(Debug, Serialize)]
struct Modalities {
    vision: bool,
    audio: bool,
}

pub(crate) async fn props(State(app): State<Arc<App>>) -> Result<Json<Props>, ApiError> {
    let engine = app.engine()?;
    let info = engine.info();
    let tokenizer = engine.tokenizer();
    let name = |id: Option<u32>| id.map(|id| tokenizer.decode(&[id]));
    let Sampling {
        temperature,
        top_k,
        top_p,
        min_p,
        repetition_penalty,
        presence_penalty,
        frequency_penalty,
        seed: _,
        logit_bias: _,
    } = Sampling::default();
    Ok(Json(Props {
        default_generation_settings: Settings {
            n_ctx: info.context,
            params: Params {
                temperature,
                top_k,
                top_p,
                min_p,
                repetition_penalty,
                presence_penalty,
                frequency_penalty,
            },
        },
        total_slots: info.slots,
        model_alias: app.names().first().copied().unwrap_or_default().to_owned(),
        model_quant: info.quant.clone(),
        chat_template: info.chat_template.clone(),
        bos_token: name(tokenizer.bos()),
        eos_token: name(tokenizer.eos()),
        modalities: Modalities {
            vision: false,
            audio: false,
        },
        build_info: concat!("kimi-operator ", env!("CARGO_PKG_VERSION")),
    }))
}

#[derive(Debug, Serialize)]
pub(crate) struct Slot {
    id: usize,
    n_ctx: u32,
    is_processing: bool,
    /// Of the request that has the slot, or had it last.
    n_prompt_tokens: u32,
    n_decoded: u32,
    /// Tokens in its KV cache.
    n_past: u32,
}

pub(crate) async fn slots(State(app): State<Arc<App>>) -> Result<Json<Vec<Slot>>, ApiError> {
    let engine = app.engine()?;
    let n_ctx = engine.info().context;
    let slot = |(id, slot): (usize, SlotStatus)| Slot {
        id,
        n_ctx,
        is_processing: slot.is_busy,
        n_prompt_tokens: slot.prompt_tokens,
        n_decoded: slot.generated_tokens,
        n_past: slot.cached_tokens,
    };
    let slots = engine.status().slots().into_iter().enumerate();
    Ok(Json(slots.map(slot).collect()))
}
