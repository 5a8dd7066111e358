//! Generations between a handler and the engine: admission, accounting, cancellation. It must not know
//! the shape of any response.

use std::sync::Arc;

use engine::{
    AnswerFormat, Event, FinishReason, Handle, Logprobs, Request, Sampling, SubmitError, Timings,
    Usage,
};
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use crate::{app::App, error::ApiError};

/// Most answers to one HTTP request: prompts times `n`.
pub(crate) const MAX_CHOICES: usize = 128;

/// One generation in progress. Dropping it, as happens when the client disconnects, cancels it.
#[derive(Debug)]
struct Generation {
    app: Arc<App>,
    events: mpsc::Receiver<Event>,
    ended: bool,
}

/// What a generation yields: the prompt where it was asked for, tokens, then exactly one of the others.
#[derive(Debug)]
pub(crate) enum Output {
    Prompt(Vec<Logprobs>),
    Token(Token),
    Done(Finish),
    Failed(ApiError),
}

/// A token of the answer and the characters it completes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) id: u32,
    pub(crate) text: String,
    pub(crate) logprobs: Option<Logprobs>,
}

/// How a generation ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Finish {
    pub(crate) reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
    /// The token that ended it, where one did and logprobs were asked for.
    pub(crate) end: Option<(u32, Logprobs)>,
}

/// A checked HTTP request, all but its prompts.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    pub(crate) sampling: Sampling,
    pub(crate) stop: Vec<String>,
    pub(crate) max_tokens: Option<u32>,
    /// Answers per prompt.
    pub(crate) n: usize,
    /// Likeliest tokens to report with each token.
    pub(crate) logprobs: Option<u32>,
    pub(crate) prompt_logprobs: bool,
    /// What answers must look like, and the field that says so.
    pub(crate) format: Option<(&'static str, AnswerFormat)>,
}

/// The answers to one HTTP request: the first is with the engine, the others follow as slots allow.
#[derive(Debug)]
pub(crate) struct Generations {
    app: Arc<App>,
    first: Generation,
    rest: Vec<Order>,
}

/// A request to the engine that is not made yet.
#[derive(Debug)]
struct Order {
    request: Request,
    events: mpsc::Receiver<Event>,
}

impl Generations {
    /// Hands the first prompt to the engine, or says why not. Choices are numbered prompt by prompt.
    pub(crate) async fn submit(
        app: &Arc<App>,
        prompts: &[Vec<u32>],
        wanted: Wanted,
    ) -> Result<Self, ApiError> {
        let engine = app.engine()?.clone();
        let mut orders = orders(&engine, prompts, &wanted)?;
        if let Some((param, format)) = wanted.format {
            let constraint = tokio::task::spawn_blocking(move || engine.constraint(&format))
                .await
                .map_err(|error| ApiError::Engine(error.to_string()))?
                .map_err(|error| ApiError::field(param, error.to_string()))?;
            for order in &mut orders {
                order.request.constraint = Some(constraint.clone());
            }
        }
        let mut orders = orders.into_iter();
        let first = orders
            .next()
            .ok_or_else(|| ApiError::field("prompt", "is empty"))?;
        Ok(Self {
            first: Generation::submit(app, first)?,
            app: Arc::clone(app),
            rest: orders.collect(),
        })
    }

    /// What all choices yield, each output with its choice's number.
    pub(crate) fn outputs(self) -> impl Stream<Item = (usize, Output)> + Send + use<> {
        let Self { app, first, rest } = self;
        let width = app.engine().map_or(1, |engine| engine.info().slots.max(1));
        let rest = stream::iter(rest).map(move |order| {
            let app = Arc::clone(&app);
            stream::once(Generation::submit_when_free(app, order))
                .flat_map(|started| match started {
                    Ok(generation) => generation.outputs().boxed(),
                    Err(error) => stream::iter([Output::Failed(error)]).boxed(),
                })
                .boxed()
        });
        stream::iter([first.outputs().boxed()])
            .chain(rest)
            .enumerate()
            .map(|(choice, outputs)| outputs.map(move |output| (choice, output)))
            .flatten_unordered(width)
    }
}

/// One order per choice, or the first prompt that is too long.
fn orders(engine: &Handle, prompts: &[Vec<u32>], wanted: &Wanted) -> Result<Vec<Order>, ApiError> {
    let context = engine.info().context;
    let mut orders = Vec::with_capacity(prompts.len() * wanted.n);
    for tokens in prompts {
        let prompt = tokens.len();
        // At least one token of answer must fit, unless none is wanted.
        let least = u32::from(wanted.max_tokens != Some(0));
        let Some(room) = u32::try_from(prompt)
            .ok()
            .and_then(|n| context.checked_sub(n))
            .filter(|&n| n >= least)
        else {
            return Err(ApiError::ContextTooLong { prompt, context });
        };
        let max_tokens = wanted.max_tokens.map_or(room, |limit| limit.min(room));
        for choice in 0..wanted.n {
            // Room for the whole answer, so that a client that reads slowly never holds a slot. The
            // channel takes memory only for what is in it.
            let scored = if wanted.prompt_logprobs { prompt } else { 0 };
            let (sender, events) = mpsc::channel(max_tokens as usize + scored + 16);
            let mut sampling = wanted.sampling.clone();
            // Choices of one prompt differ, and the first is what it would be alone.
            sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(choice as u64));
            let request = Request {
                max_tokens: Some(max_tokens),
                sampling,
                stop: wanted.stop.clone(),
                logprobs: wanted.logprobs,
                prompt_logprobs: wanted.prompt_logprobs,
                ..Request::new(tokens.clone(), sender)
            };
            orders.push(Order { request, events });
        }
    }
    Ok(orders)
}

impl Generation {
    /// Hands an order to the engine without waiting.
    fn submit(app: &Arc<App>, order: Order) -> Result<Self, ApiError> {
        match app.engine()?.submit(order.request) {
            Ok(()) => Ok(Self::started(app, order.events)),
            Err(SubmitError::Busy) => {
                app.metrics.refused();
                Err(ApiError::Busy {
                    retry_after: app.metrics.retry_after(),
                })
            }
            Err(SubmitError::Stopped) => {
                app.mark_engine_stopped();
                Err(ApiError::EngineStopped)
            }
        }
    }

    /// Hands over an order when the queue has room: whoever has one answer already waits for the
    /// others.
    async fn submit_when_free(app: Arc<App>, order: Order) -> Result<Self, ApiError> {
        let submitted = app.engine()?.submit_when_free(order.request).await;
        submitted.map_err(|_| {
            app.mark_engine_stopped();
            ApiError::EngineStopped
        })?;
        Ok(Self::started(&app, order.events))
    }

    fn started(app: &Arc<App>, events: mpsc::Receiver<Event>) -> Self {
        app.request_started();
        Self {
            app: Arc::clone(app),
            events,
            ended: false,
        }
    }

    fn outputs(self) -> impl Stream<Item = Output> + Send {
        stream::unfold(self, |mut generation| async move {
            let output = generation.next().await?;
            Some((output, generation))
        })
    }

    /// The next output; `None` after the last.
    async fn next(&mut self) -> Option<Output> {
        if self.ended {
            return None;
        }
        let output = match self.events.recv().await {
            Some(Event::Prompt(logprobs)) => Output::Prompt(logprobs),
            Some(Event::Token { id, text, logprobs }) => {
                Output::Token(Token { id, text, logprobs })
            }
            Some(Event::Done {
                reason,
                usage,
                timings,
                end,
            }) => {
                self.ended = true;
                self.app.metrics.finished(&usage, &timings);
                Output::Done(Finish {
                    reason,
                    usage,
                    timings,
                    end,
                })
            }
            Some(Event::Error(message)) => {
                self.ended = true;
                Output::Failed(ApiError::Engine(message))
            }
            // The engine ends each request with an event, so its thread is gone.
            None => {
                self.ended = true;
                self.app.mark_engine_stopped();
                Output::Failed(ApiError::EngineStopped)
            }
        };
        Some(output)
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        self.app.request_ended();
        if !self.ended {
            self.app.metrics.cancelled();
        }
    }
}
