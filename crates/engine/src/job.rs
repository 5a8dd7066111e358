//! One request in its slot, pass by pass: checks, prefill, decode, events. It must not know other
//! requests.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{Sender, error::TrySendError};

use crate::{
    Constraint, Event, FinishReason, Logprobs, Request, SlotStatus, Timings, Tokenizer, Usage,
    answer::{Answer, Piece},
    logprobs::logprobs,
    model::{Logits, Model},
    sampler::Sampler,
    scheduler::{Slot, common},
};

/// Tokens of a prompt whose logits are all wanted that go through the model together: a row of
/// logits each, 40 MiB for Kimi's vocabulary.
const SCORED_BATCH: usize = 64;

/// A request under way.
pub(crate) struct Job {
    prompt: Vec<u32>,
    max_tokens: Option<u32>,
    /// Likeliest tokens to report with each token.
    logprobs: Option<u32>,
    /// Whether the prompt's tokens are reported too.
    prompt_logprobs: bool,
    /// Tokens of the prompt whose successors are reported.
    scored: usize,
    /// What the last token was, where it ended the answer and is reported.
    end: Option<(u32, Logprobs)>,
    constraint: Option<Constraint>,
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

/// What became of a pass.
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
            mut constraint,
            logprobs,
            prompt_logprobs,
            events,
        } = request;
        if let Some(constraint) = &mut constraint {
            constraint.begin(&tokens);
        }
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
            logprobs,
            prompt_logprobs: prompt_logprobs && logprobs.is_some(),
            scored: 0,
            end: None,
            constraint,
            events,
            arrived,
        }
    }

    /// What there is to say of the request in the status of its slot.
    pub(crate) fn status(&self) -> SlotStatus {
        SlotStatus {
            prompt_tokens: self.usage.prompt_tokens,
            generated_tokens: self.usage.completion_tokens,
            ..SlotStatus::default()
        }
    }

    /// Ends the request from outside, with an error if its reader has room for it.
    pub(crate) fn abort(self, message: &str) {
        let _ = self.events.try_send(Event::Error(message.to_owned()));
    }

    /// Gets ready for a pass of the model, unless the reader is behind: sends what is unsent, checks a
    /// new request.
    pub(crate) fn prepare(&mut self, model: &Model, slot: &mut Slot) -> Step {
        let step = self.flush();
        if step == Step::Moved && self.phase == Phase::New {
            self.begin(model, slot);
            return self.flush();
        }
        step
    }

    /// Whether part of the prompt is yet to go through the model.
    pub(crate) fn is_reading(&self) -> bool {
        self.phase == Phase::Prefill
    }

    /// Tokens that follow the `cached` ones in the next pass, at most `most` of the prompt, and whose
    /// logits are wanted.
    pub(crate) fn next(&self, cached: usize, most: usize) -> (Vec<u32>, Logits) {
        match self.phase {
            Phase::New | Phase::Over => (Vec::new(), Logits::None),
            Phase::Prefill => {
                let rest = &self.prompt[cached..];
                if self.prompt_logprobs {
                    let most = most.min(SCORED_BATCH);
                    return (rest[..rest.len().min(most)].to_vec(), Logits::From(0));
                }
                let batch = &rest[..rest.len().min(most)];
                let is_last = batch.len() == rest.len();
                let logits = if is_last { Logits::Last } else { Logits::None };
                (batch.to_vec(), logits)
            }
            Phase::Decode(token) => (vec![token], Logits::Last),
        }
    }

    /// Takes what a pass of the model computed for [`Job::next`] and decides how to go on.
    pub(crate) fn take(
        &mut self,
        mut logits: Vec<f32>,
        time: Duration,
        tokenizer: &Tokenizer,
        slot: &Slot,
    ) -> Step {
        match self.phase {
            Phase::New | Phase::Over => {}
            Phase::Prefill => {
                self.timings.prefill += time;
                if self.prompt_logprobs {
                    logits = self.score(logits, slot.cache.len());
                }
            }
            Phase::Decode(_) => self.timings.decode += time,
        }
        if !logits.is_empty() {
            self.choose(logits, tokenizer, slot);
        }
        match self.flush() {
            // It did move; the next pass will find out whether the reader has room again.
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
        // One that only reads its prompt needs no room for an answer.
        let is_reading = self.max_tokens == Some(0);
        if self.prompt.len() + usize::from(!is_reading) > capacity {
            return self.fail(format!(
                "the prompt has {} tokens, which leaves no room for an answer in the context of \
                 {capacity}; shorten it or serve the model with a longer context",
                self.prompt.len()
            ));
        }
        if is_reading && !self.prompt_logprobs {
            return self.finish(FinishReason::Length);
        }
        // The last token of the prompt is always computed: its logits choose the first of the answer.
        let kept = if self.prompt_logprobs {
            0
        } else {
            common(&slot.tokens, &self.prompt).min(self.prompt.len() - 1)
        };
        slot.cache.truncate(kept);
        slot.tokens.truncate(kept);
        self.usage.cached_tokens = u32::try_from(kept).unwrap_or(u32::MAX);
        self.phase = Phase::Prefill;
    }

    /// Reports the prompt's tokens that `logits` predict: a row each for those up to `end` that are not
    /// reported yet. Gives back the row that predicts the first token of the answer, once there is one.
    fn score(&mut self, mut logits: Vec<f32>, end: usize) -> Vec<f32> {
        let vocab = logits.len() / (end - self.scored).max(1);
        let rows = logits.chunks_exact(vocab.max(1));
        let top = self.logprobs.unwrap_or_default();
        let scored: Vec<Logprobs> = rows
            .zip(&self.prompt[self.scored + 1..])
            .map(|(logits, token)| logprobs(logits, *token, top))
            .collect();
        if !scored.is_empty() {
            self.unsent.push_back(Event::Prompt(scored));
        }
        self.scored = end;
        if end < self.prompt.len() {
            return Vec::new();
        }
        if self.max_tokens == Some(0) {
            self.finish(FinishReason::Length);
            return Vec::new();
        }
        logits.split_off(logits.len() - vocab)
    }

    /// Takes the next token from logits and decides how to go on.
    fn choose(&mut self, mut logits: Vec<f32>, tokenizer: &Tokenizer, slot: &Slot) {
        // Sampling changes the logits, and what is reported is the model's own opinion.
        let unchanged = self.logprobs.map(|_| logits.clone());
        let masked = match &mut self.constraint {
            Some(constraint) => constraint.mask(&mut logits),
            None => Ok(()),
        };
        if let Err(error) = masked {
            return self.fail(error.to_string());
        }
        let Some(token) = self.sampler.sample(&mut logits) else {
            return self
                .fail("the model computed no finite logits; its file is damaged, fetch it again");
        };
        let reported = self
            .logprobs
            .zip(unchanged)
            .map(|(top, logits)| logprobs(&logits, token, top));
        self.usage.completion_tokens += 1;
        if tokenizer.is_stop(token) {
            self.end = reported.map(|logprobs| (token, logprobs));
            return self.finish(FinishReason::Stop);
        }
        let is_over = match &mut self.constraint {
            Some(constraint) => constraint.accept(token),
            None => Ok(false),
        };
        let is_over = match is_over {
            Ok(is_over) => is_over,
            Err(error) => return self.fail(error.to_string()),
        };
        let step = self.answer.push(token, reported, tokenizer);
        self.send(step.pieces);
        if step.stopped || is_over {
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

    fn send(&mut self, pieces: Vec<Piece>) {
        self.unsent.extend(pieces.into_iter().map(|piece| {
            let Piece { id, text, logprobs } = piece;
            Event::Token { id, text, logprobs }
        }));
    }

    fn finish(&mut self, reason: FinishReason) {
        let rest = self.answer.finish();
        self.send(rest);
        self.unsent.push_back(Event::Done {
            reason,
            usage: self.usage,
            timings: self.timings,
            end: self.end.take(),
        });
        self.phase = Phase::Over;
    }

    fn fail(&mut self, message: impl Into<String>) {
        self.unsent.push_back(Event::Error(message.into()));
        self.phase = Phase::Over;
    }
}
