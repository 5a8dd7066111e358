//! `/tokenize`, `/detokenize`, `/apply-template` and `/tokenizer_info`: the model's tokens without the
//! model, in llama-server's form and in vLLM's. It must not know generation.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use engine::{Handle, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::{app::App, body, chat, error::ApiError, openai::Chat, tools};

#[derive(Debug, Deserialize)]
struct Text {
    /// llama-server's word.
    content: Option<String>,
    /// vLLM's.
    prompt: Option<String>,
    add_special: Option<bool>,
    add_special_tokens: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Tokenized {
    tokens: Vec<WireToken>,
    count: usize,
    max_model_len: u32,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum WireToken {
    Id(u32),
    Piece { id: u32, piece: Piece },
}

/// A token's text, or its bytes where they are no whole characters.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Piece {
    Text(String),
    Bytes(Vec<u8>),
}

/// `POST /tokenize`: `{"content": …}` or `{"prompt": …}`.
pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Tokenized>, ApiError> {
    let engine = app.engine()?.clone();
    let text: Text = body::parse(&body::read(request).await?)?;
    let max_model_len = engine.info().context;
    let tokens = on_a_thread(move || tokens(engine.tokenizer(), text)).await??;
    Ok(Json(Tokenized {
        count: tokens.len(),
        tokens,
        max_model_len,
    }))
}

fn tokens(tokenizer: &Tokenizer, text: Text) -> Result<Vec<WireToken>, ApiError> {
    let Text {
        content,
        prompt,
        add_special,
        add_special_tokens,
        parse_special,
        with_pieces,
    } = text;
    let content = content
        .or(prompt)
        .ok_or_else(|| ApiError::field("content", "missing"))?;
    let ids = if parse_special.unwrap_or(true) {
        tokenizer.encode_with_special(&content)
    } else {
        tokenizer.encode_ordinary(&content)
    };
    let is_added = add_special.or(add_special_tokens).unwrap_or(false) && tokenizer.add_bos();
    let bos = tokenizer.bos().filter(|_| is_added);
    let wire = |id: u32| {
        if with_pieces.unwrap_or(false) {
            let bytes = tokenizer.token_bytes(id).to_vec();
            let piece = String::from_utf8(bytes)
                .map_or_else(|error| Piece::Bytes(error.into_bytes()), Piece::Text);
            WireToken::Piece { id, piece }
        } else {
            WireToken::Id(id)
        }
    };
    Ok(bos.into_iter().chain(ids).map(wire).collect())
}

#[derive(Debug, Deserialize)]
struct Tokens {
    tokens: Vec<u32>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Detokenized {
    /// llama-server's word.
    content: String,
    /// vLLM's.
    prompt: String,
}

/// `POST /detokenize`: `{"tokens": […]}`.
pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Detokenized>, ApiError> {
    let engine = app.engine()?;
    let Tokens { tokens } = body::parse(&body::read(request).await?)?;
    known(engine, &tokens)?;
    let content = engine.tokenizer().decode(&tokens);
    Ok(Json(Detokenized {
        prompt: content.clone(),
        content,
    }))
}

fn known(engine: &Handle, tokens: &[u32]) -> Result<(), ApiError> {
    let vocab = engine.info().vocab;
    match tokens.iter().position(|&id| id >= vocab) {
        None => Ok(()),
        Some(at) => {
            let problem = format!("token id {} is not below {vocab}", tokens[at]);
            Err(ApiError::field(format!("tokens[{at}]"), problem))
        }
    }
}

#[derive(Debug, Deserialize)]
struct Options {
    add_generation_prompt: Option<bool>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Rendered {
    prompt: String,
    /// The same as the model gets it: only here is a control token told from text that looks alike.
    tokens: Vec<u32>,
}

/// `POST /apply-template`: what `/v1/chat/completions` would make of `messages` and `tools`.
pub(crate) async fn apply_template(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Json<Rendered>, ApiError> {
    let engine = app.engine()?;
    let bytes = body::read(request).await?;
    let options: Options = body::parse(&bytes)?;
    let chat: Chat = body::parse(&bytes)?;
    let add_generation_prompt = options.add_generation_prompt.unwrap_or(true);
    let tools = tools::tools(&chat)?.declared;
    let thinking = chat::thinking(&chat)?;
    let prompt = chat::prompt(
        engine,
        chat.messages,
        tools,
        thinking,
        add_generation_prompt,
    );
    let tokens = prompt.await?.tokens;
    Ok(Json(Rendered {
        prompt: engine.tokenizer().decode(&tokens),
        tokens,
    }))
}

/// vLLM's `GET /tokenizer_info`, by which lm-evaluation-harness finds that it can tokenize here.
#[derive(Debug, Serialize)]
pub(crate) struct TokenizerInfo {
    tokenizer_class: &'static str,
    bos_token: Option<String>,
    eos_token: Option<String>,
    add_bos_token: bool,
    model_max_length: u32,
    chat_template: Option<String>,
}

pub(crate) async fn info(State(app): State<Arc<App>>) -> Result<Json<TokenizerInfo>, ApiError> {
    let engine = app.engine()?;
    let tokenizer = engine.tokenizer();
    let name = |id: Option<u32>| id.map(|id| tokenizer.decode(&[id]));
    Ok(Json(TokenizerInfo {
        tokenizer_class: "TikTokenTokenizer",
        bos_token: name(tokenizer.bos()),
        eos_token: name(tokenizer.eos()),
        add_bos_token: tokenizer.add_bos(),
        model_max_length: engine.info().context,
        chat_template: engine.info().chat_template.clone(),
    }))
}

/// Runs work that takes as long as the body is large, which must not stall other connections.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| ApiError::Engine(error.to_string()))
}
