//! `POST /v1/completions`: text in, its continuation out, no template. It must not know chat.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use engine::Handle;

use crate::{
    app::App,
    body,
    choice::{Choice, Echo},
    error::ApiError,
    generate::{Generations, MAX_CHOICES, Wanted},
    models,
    openai::{Completion, Options, Prompt},
    reply::{Reply, Shape},
    sampling, stream,
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
    let wanted = wanted(&options, &completion, engine.info().vocab)?;
    let is_echoed = completion.echo.unwrap_or(false);
    let prompts = prompts(&engine, completion.prompt.0).await?;

    let mut reply = Reply::new(Shape::Text, model, app.fingerprint(), wanted.n);
    reply.include_usage = options.include_usage();
    let mut choices = Vec::with_capacity(prompts.len() * wanted.n);
    for prompt in &prompts {
        let echo = is_echoed.then_some(prompt);
        let choice = || Choice::new(engine.clone(), wanted.logprobs.is_some(), echo.cloned());
        choices.extend((0..wanted.n).map(|_| choice()));
    }
    let tokens: Vec<Vec<u32>> = prompts.into_iter().map(|prompt| prompt.tokens).collect();
    let generations = Generations::submit(&app, &tokens, wanted).await?;
    if options.streams() {
        return Ok(stream::respond(reply, choices, generations));
    }
    let parts = stream::collect(choices, generations).await?;
    Ok(Json(reply.whole(parts)).into_response())
}

fn wanted(options: &Options, completion: &Completion, vocab: u32) -> Result<Wanted, ApiError> {
    let mut wanted = sampling::wanted(options, vocab)?;
    wanted.max_tokens.get_or_insert(DEFAULT_MAX_TOKENS);
    let is_echoed = completion.echo.unwrap_or(false);
    // Without an echo an answer of no tokens is no answer.
    if !is_echoed {
        sampling::at_least_one_token(options, &wanted)?;
    }
    if let Some(top) = completion.logprobs {
        wanted.logprobs = Some(sampling::alternatives("logprobs", top)?);
        wanted.prompt_logprobs = is_echoed;
    }
    if let Some(best_of) = completion
        .best_of
        .filter(|best_of| *best_of != wanted.n as u64)
    {
        let problem = format!("{best_of} is not n; answers are not ranked");
        return Err(ApiError::field("best_of", problem));
    }
    if completion
        .suffix
        .as_ref()
        .is_some_and(|suffix| !suffix.is_empty())
    {
        return Err(ApiError::field("suffix", "not supported"));
    }
    let count = completion.prompt.0.len().saturating_mul(wanted.n);
    if count > MAX_CHOICES {
        let problem = format!("{count} answers wanted in all, at most {MAX_CHOICES} are given");
        return Err(ApiError::field("prompt", problem));
    }
    Ok(wanted)
}

/// The prompts as tokens and as text.
async fn prompts(engine: &Handle, prompts: Vec<Prompt>) -> Result<Vec<Echo>, ApiError> {
    let vocab = engine.info().vocab;
    let is_single = prompts.len() == 1;
    for (number, prompt) in prompts.iter().enumerate() {
        let param = if is_single {
            "prompt".to_owned()
        } else {
            format!("prompt[{number}]")
        };
        match prompt {
            Prompt::Text(text) if text.is_empty() => {
                return Err(ApiError::field(param, "is empty"));
            }
            Prompt::Tokens(tokens) if tokens.is_empty() => {
                return Err(ApiError::field(param, "is empty"));
            }
            Prompt::Text(_) => {}
            Prompt::Tokens(tokens) => {
                if let Some(at) = tokens.iter().position(|&id| id >= vocab) {
                    let problem = format!("token id {} is not below {vocab}", tokens[at]);
                    return Err(ApiError::field(format!("{param}[{at}]"), problem));
                }
            }
        }
    }
    let engine = engine.clone();
    let read = move || {
        prompts
            .into_iter()
            .map(|prompt| read(&engine, prompt))
            .collect()
    };
    // A long prompt takes a while to tokenize, which must not stall other connections.
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| ApiError::Engine(error.to_string()))
}

fn read(engine: &Handle, prompt: Prompt) -> Echo {
    let tokenizer = engine.tokenizer();
    match prompt {
        Prompt::Text(text) => Echo {
            tokens: tokenizer.encode_prompt(&text),
            text,
            unspoken: usize::from(tokenizer.add_bos() && tokenizer.bos().is_some()),
        },
        Prompt::Tokens(tokens) => Echo {
            text: tokenizer.decode(&tokens),
            tokens,
            unspoken: 0,
        },
    }
}
