//! One request in its slot, step by step: checks, prefill, decode, events. It must not know other
//! requests.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{Sender, error::TrySendError};

use crate::{
    Event, FinishReason, Request, Timings, Tokenizer, Usage,
    answer::Answer,
    model::{BATCH, Logits, Model},
    sampler::Sampler,
    scheduler::{Slot, common},
};

/// A request under way.
pub(crate) struct Job {
    prompt: Vec<u32>,
    max_tokens: Option<u32>,
    events: Sender<Event>,
    sampler: Sampler,
    answer: Answer,
    phase: Phase,
    /// Events the reader has had no room for.
    unsent: VecDeque<Event>,
    usage: Usage,
    timings: Timings,
    arrived: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is done yet.
    New,
    /// Part of the prompt is in the cache.
    Prefill,
    /// This token is to go through the model next.
    Decode(u32),
    /// All events are made.
    Over,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// There is more to do.
    Moved,
    /// The reader has no room.
    Blocked,
    /// The slot is free.
    Ended,
}

impl Job {
    pub(crate) fn new(request: Request, arrived: Instant) -> Self {
        let Request {
            tokens,
            max_tokens,
            sampling,
            stop,
            events,
        } = request;
        Self {
            sampler: Sampler::new(sampling, &tokens),
            answer: Answer::new(stop),
            phase: Phase::New,
            unsent: VecDeque::new(),
            usage: Usage {
                prompt_tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
                ..Usage::default()
            },
            timings: Timings::default(),
            prompt: tokens,
            max_tokens,
            events,
            arrived,
        }
    }

    /// Ends the request from outside, with an error if its reader has room for it.
    pub(crate) fn abort(self, message: &str) {
        let _ = self.events.try_send(Event::Error(message.to_owned()));
    }

    /// Computes one batch of the prompt or one token, unless the reader is behind.
    pub(crate) fn step(&mut self, model: &Model, tokenizer: &Tokenizer, slot: &mut Slot) -> Step {
        match self.flush() {
            Step::Moved => {}
            blocked_or_ended => return blocked_or_ended,
        }
        match self.phase {
            Phase::New => self.begin(model, slot),
            Phase::Prefill => self.prefill(model, tokenizer, slot),
            Phase::Decode(token) => self.decode(token, model, tokenizer, slot),
            Phase::Over => {}
        }
        match self.flush() {
            // It did move; the next step will find out whether the reader has room again.
            Step::Blocked => Step::Moved,
            moved_or_ended => moved_or_ended,
        }
    }

    /// Sends what is unsent. `Ended` when that was all or nobody listens any more.
    fn flush(&mut self) -> Step {
        if self.events.is_closed() {
            return Step::Ended;
        }
        while let Some(event) = self.unsent.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Closed(_)) => return Step::Ended,
                Err(TrySendError::Full(event)) => {
                    self.unsent.push_front(event);
                    return Step::Blocked;
                }
            }
        }
        if self.phase == Phase::Over {
            Step::Ended
        } else {
            Step::Moved
        }
    }

    /// Checks the request against the model and keeps what the cache has of its prompt.
    fn begin(&mut self, model: &Model, slot: &mut Slot) {
        self.timings.queued = self.arrived.elapsed();
        let capacity = slot.cache.len() + slot.cache.free();
        let strange = self.prompt.iter().find(|id| **id as usize >= model.vocab());
        if self.prompt.is_empty() {
            return self.fail("the prompt is empty; send at least one token");
        }
        if let Some(id) = strange {
            let vocab = model.vocab();
            return self.fail(format!("token id {id} is beyond the vocabulary of {vocab}"));
        }
        if self.prompt.len() >= capacity {
            return self.fail(format!(
                "the prompt has {} tokens, which leaves no room for an answer in the context of \
                 {capacity}; shorten it or serve the model with a longer context",
                self.prompt.len()
            ));
        }
        if self.max_tokens == Some(0) {
            return self.finish(FinishReason::Length);
        }
        // The last token of the prompt is always computed: its logits choose the first of the answer.
        let kept = common(&slot.tokens, &self.prompt).min(self.prompt.len() - 1);
        slot.cache.truncate(kept);
        slot.tokens.truncate(kept);
        self.usage.cached_tokens = u32::try_from(kept).unwrap_or(u32::MAX);
        self.phase = Phase::Prefill;
    }

    fn prefill(&mut self, model: &Model, tokenizer: &Tokenizer, slot: &mut Slot) {
        let rest = &self.prompt[slot.cache.len()..];
        let batch = &rest[..rest.len().min(BATCH)];
        let is_last = batch.len() == rest.len();
        let (logits, time) = compute(model, batch, slot);
        self.timings.prefill += time;
        if is_last {
            self.choose(logits, tokenizer, slot);
        }
    }

    fn decode(&mut self, token: u32, model: &Model, tokenizer: &Tokenizer, slot: &mut Slot) {
        let (logits, time) = compute(model, &[token], slot);
        self.timings.decode += time;
        self.choose(logits, tokenizer, slot);
    }

    /// Takes the next token from logits and decides how to go on.
    fn choose(&mut self, mut logits: Vec<f32>, tokenizer: &Tokenizer, slot: &Slot) {
        let Some(token) = self.sampler.sample(&mut logits) else {
            return self
                .fail("the model computed no finite logits; its file is damaged, fetch it again");
        };
        self.usage.completion_tokens += 1;
        if tokenizer.is_stop(token) {
            return self.finish(FinishReason::Stop);
        }
        let step = self.answer.push(token, tokenizer);
        self.send(step.pieces);
        if step.stopped {
            return self.finish(FinishReason::Stop);
        }
        let is_enough = self
            .max_tokens
            .is_some_and(|most| self.usage.completion_tokens >= most);
        if is_enough || slot.cache.free() == 0 {
            return self.finish(FinishReason::Length);
        }
        self.phase = Phase::Decode(token);
    }

    fn send(&mut self, pieces: Vec<(u32, String)>) {
        self.unsent.extend(
            pieces
                .into_iter()
                .map(|(id, text)| Event::Token { id, text }),
        );
    }

    fn finish(&mut self, reason: FinishReason) {
        let rest = self.answer.finish();
        self.send(rest);
        self.unsent.push_back(Event::Done {
            reason,
            usage: self.usage,
            timings: self.timings,
        });
        self.phase = Phase::Over;
    }

    fn fail(&mut self, message: impl Into<String>) {
        self.unsent.push_back(Event::Error(message.into()));
        self.phase = Phase::Over;
    }
}

/// One pass of the model; the cache and its token list go together.
fn compute(model: &Model, tokens: &[u32], slot: &mut Slot) -> (Vec<f32>, Duration) {
    let begun = Instant::now();
    let logits = model.forward(tokens, &mut slot.cache, Logits::Last);
    slot.tokens.extend_from_slice(tokens);
    (logits, begun.elapsed())
}
