//! One generation between a handler and the engine: admission, accounting, cancellation. It must not
//! know the shape of any response.

use std::sync::Arc;

use engine::{Event, FinishReason, Request, SubmitError, Timings, Usage};
use tokio::sync::mpsc;

use crate::{app::App, error::ApiError, openai::Options, sampling};

/// A generation in progress. Dropping it, as happens when the client disconnects, cancels it.
#[derive(Debug)]
pub(crate) struct Generation {
    app: Arc<App>,
    events: mpsc::Receiver<Event>,
    ended: bool,
}

/// What a generation yields: text, then exactly one of the others.
#[derive(Debug)]
pub(crate) enum Output {
    Text(String),
    Done(Finish),
    Failed(ApiError),
}

/// How a generation ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finish {
    pub(crate) reason: FinishReason,
    pub(crate) usage: Usage,
    pub(crate) timings: Timings,
}

/// A checked request, all but its prompt.
#[derive(Debug)]
pub(crate) struct Wanted {
    sampling: engine::Sampling,
    stop: Vec<String>,
    max_tokens: Option<u32>,
}

impl Wanted {
    /// Checks every field before any work is done for the request.
    pub(crate) fn check(options: &Options, vocab: u32) -> Result<Self, ApiError> {
        sampling::refuse_unsupported(options)?;
        Ok(Self {
            sampling: sampling::sampling(options, vocab)?,
            stop: sampling::stops(&options.stop)?,
            max_tokens: sampling::max_tokens(options)?,
        })
    }

    pub(crate) fn or_max_tokens(mut self, limit: u32) -> Self {
        self.max_tokens.get_or_insert(limit);
        self
    }
}

impl Generation {
    /// Hands a prompt to the engine, or says why not.
    pub(crate) fn submit(
        app: &Arc<App>,
        tokens: Vec<u32>,
        wanted: Wanted,
    ) -> Result<Self, ApiError> {
        let engine = app.engine()?;
        let context = engine.info().context;
        let prompt = tokens.len();
        // At least one token of answer must fit.
        let Some(room) = u32::try_from(prompt)
            .ok()
            .and_then(|n| context.checked_sub(n))
            .filter(|&n| n > 0)
        else {
            return Err(ApiError::ContextTooLong { prompt, context });
        };
        let max_tokens = wanted.max_tokens.map_or(room, |limit| limit.min(room));
        // Room for the whole answer, so that a client that reads slowly never holds a slot. The
        // channel takes memory only for what is in it.
        let (sender, events) = mpsc::channel(max_tokens as usize + 16);
        let request = Request {
            tokens,
            max_tokens: Some(max_tokens),
            sampling: wanted.sampling,
            stop: wanted.stop,
            events: sender,
        };
        match engine.submit(request) {
            Ok(()) => {}
            Err(SubmitError::Busy) => {
                app.metrics.refused();
                return Err(ApiError::Busy {
                    retry_after: app.metrics.retry_after(),
                });
            }
            Err(SubmitError::Stopped) => {
                app.mark_engine_stopped();
                return Err(ApiError::EngineStopped);
            }
        }
        app.request_started();
        Ok(Self {
            app: Arc::clone(app),
            events,
            ended: false,
        })
    }

    /// The next output; `None` after the last.
    pub(crate) async fn next(&mut self) -> Option<Output> {
        while !self.ended {
            match self.events.recv().await {
                Some(Event::Token { text, .. }) if text.is_empty() => {}
                Some(Event::Token { text, .. }) => return Some(Output::Text(text)),
                Some(Event::Done {
                    reason,
                    usage,
                    timings,
                }) => {
                    self.ended = true;
                    self.app.metrics.finished(&usage, &timings);
                    return Some(Output::Done(Finish {
                        reason,
                        usage,
                        timings,
                    }));
                }
                Some(Event::Error(message)) => {
                    self.ended = true;
                    return Some(Output::Failed(ApiError::Engine(message)));
                }
                // The engine ends each request with an event, so its thread is gone.
                None => {
                    self.ended = true;
                    self.app.mark_engine_stopped();
                    return Some(Output::Failed(ApiError::EngineStopped));
                }
            }
        }
        None
    }

    /// The whole text and how it ended.
    pub(crate) async fn collect(mut self) -> Result<(String, Finish), ApiError> {
        let mut whole = String::new();
        while let Some(output) = self.next().await {
            match output {
                Output::Text(text) => whole.push_str(&text),
                Output::Done(finish) => return Ok((whole, finish)),
                Output::Failed(error) => return Err(error),
            }
        }
        Err(ApiError::EngineStopped)
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
