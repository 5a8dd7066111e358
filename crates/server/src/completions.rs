//! `POST /v1/completions`: text in, its continuation out, no template. It must not know chat.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    body,
    error::ApiError,
    generate::{Generation, Wanted},
    models,
    openai::{Completion, Options, Prompt},
    reply::{Reply, Shape},
    stream,
};

/// OpenAI's default for this route.
const DEFAULT_MAX_TOKENS: u32 = 16;

pub(crate) async fn create(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, ApiError> {
    let engine = app.engine()?.clone();
    let bytes = body::read(request).await?;
    let options: Options = body::parse(&bytes)?;
    let completion: Completion = body::parse(&bytes)?;
    let model = models::resolve(&app, options.model.as_deref())?;
    let vocab = engine.info().vocab;
    let wanted = Wanted::check(&options, vocab)?.or_max_tokens(DEFAULT_MAX_TOKENS);

    let reply = Reply::new(Shape::Text, model, app.fingerprint());
    let tokens = match completion.prompt {
        Prompt::Text(text) => {
            tokio::task::spawn_blocking(move || engine.tokenizer().encode_prompt(&text))
                .await
                .map_err(|error| ApiError::Engine(error.to_string()))?
        }
        Prompt::Tokens(tokens) => {
            if let Some(index) = tokens.iter().position(|&id| id >= vocab) {
                let problem = format!("token id {} is not below {vocab}", tokens[index]);
                return Err(ApiError::field(format!("prompt[{index}]"), problem));
            }
            tokens
        }
    };
    if tokens.is_empty() {
        return Err(ApiError::field("prompt", "is empty"));
    }
    let generation = Generation::submit(&app, tokens, wanted)?;
    if options.streams() {
        return Ok(stream::respond(reply, generation, options.include_usage()));
    }
    let (text, finish) = generation.collect().await?;
    Ok(Json(reply.whole(text, &finish)).into_response())
}
