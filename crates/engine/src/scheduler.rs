//! The engine thread: gives each request a slot with a KV cache of its own, and lets the tokens of all
//! slots go through the model together, so that they share one pass over the weights. It must not know
//! arithmetic or HTTP.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::{
    Progress, Request, Tokenizer,
    job::{Job, Step},
    kv_cache::KvCache,
    model::{BATCH, Logits, Model, Turn},
};

/// Requests that wait in the channel, and again that wait in the scheduler.
pub(crate) const QUEUE: usize = 32;

/// Tokens of prompts that go through the model beside those of answers: few enough that answers go on
/// while a long prompt is read.
const BESIDE_ANSWERS: usize = 64;

/// How often an idle engine shows that it lives and looks for its end.
const IDLE: Duration = Duration::from_millis(250);

/// Pause when every job waits for its reader.
const BLOCKED: Duration = Duration::from_millis(2);

/// What the engine thread works with.
pub(crate) struct Scheduler {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// A KV cache and the request that has it. The cache outlives the request, for the next one that
/// begins alike.
pub(crate) struct Slot {
    pub(crate) cache: KvCache,
    /// Tokens in the cache.
    pub(crate) tokens: Vec<u32>,
    job: Option<Job>,
}

impl Slot {
    fn new(cache: KvCache) -> Self {
        Self {
            cache,
            tokens: Vec::new(),
            job: None,
        }
    }
}

impl Scheduler {
    /// Serves as many requests at a time as there are caches, until told to stop or until no handle is left and all requests are answered.
    pub(crate) fn run(mut self, caches: Vec<KvCache>, runtime: &tokio::runtime::Runtime) {
        let mut slots: Vec<Slot> = caches.into_iter().map(Slot::new).collect();
        let mut waiting = VecDeque::new();
        let mut open = true;
        while !self.stop.load(Ordering::Relaxed) {
            self.progress.touch();
            open &= self.take_requests(&mut waiting);
            admit(&mut waiting, &mut slots);

            if slots.iter().all(|slot| slot.job.is_none()) {
                if !open {
                    return;
                }
                // All slots are free, so nothing waits either.
                let next = runtime
                    .block_on(async { tokio::time::timeout(IDLE, self.requests.recv()).await });
                if let Ok(Some(request)) = next {
                    waiting.push_back((Instant::now(), request));
                }
                continue;
            }
            if !self.pass(&mut slots) {
                std::thread::sleep(BLOCKED);
            }
        }
        for job in slots.into_iter().filter_map(|slot| slot.job) {
            job.abort("the engine is shutting down; send the request again");
        }
    }

    /// Moves requests out of the channel, to note when they came. False when no more will come.
    fn take_requests(&mut self, waiting: &mut VecDeque<(Instant, Request)>) -> bool {
        while waiting.len() < QUEUE {
            match self.requests.try_recv() {
                Ok(request) => waiting.push_back((Instant::now(), request)),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    /// One pass of the model for every job that has tokens for it: one of an answer, or a share of
    /// [`prompt_room`] of a prompt. False when no job could move.
    fn pass(&self, slots: &mut [Slot]) -> bool {
        let mut moved = false;
        let mut ready = Vec::new();
        for slot in slots {
            let Some(mut job) = slot.job.take() else {
                continue;
            };
            match job.prepare(&self.model, slot) {
                Step::Moved => ready.push((slot, job)),
                Step::Blocked => slot.job = Some(job),
                Step::Ended => moved = true,
            }
        }
        let reading = ready.iter().filter(|(_, job)| job.is_reading()).count();
        let share = prompt_room(reading, ready.len());
        let asked: Vec<(Vec<u32>, Logits)> = ready
            .iter()
            .map(|(slot, job)| job.next(slot.cache.len(), share))
            .collect();

        let begun = Instant::now();
        let mut turns: Vec<Turn<'_>> = ready
            .iter_mut()
            .zip(&asked)
            .map(|((slot, _), (tokens, logits))| Turn {
                tokens,
                cache: &mut slot.cache,
                logits: *logits,
            })
            .collect();
        let logits = self.model.forward_all(&mut turns);
        let time = begun.elapsed();

        for (((slot, mut job), (tokens, _)), logits) in ready.into_iter().zip(asked).zip(logits) {
            slot.tokens.extend(tokens);
            moved = true;
            if job.take(logits, time, &self.tokenizer, slot) != Step::Ended {
                slot.job = Some(job);
            }
        }
        moved
    }
}

/// Tokens of each of `reading` prompts that go through the model in a pass of `jobs` jobs.
fn prompt_room(reading: usize, jobs: usize) -> usize {
    let most = if reading < jobs {
        BESIDE_ANSWERS
    } else {
        BATCH
    };
    (most / reading.max(1)).max(1)
}

/// Gives waiting requests to free slots, each to the one whose cache begins most like its prompt;
/// among equals the one with the least in its cache, which others can miss most easily.
fn admit(waiting: &mut VecDeque<(Instant, Request)>, slots: &mut [Slot]) {
    waiting.retain(|(_, request)| !request.events.is_closed());
    while let Some((arrived, request)) = waiting.pop_front() {
        let fitness = |slot: &Slot| {
            let alike = common(&slot.tokens, &request.tokens);
            (alike, std::cmp::Reverse(slot.tokens.len()))
        };
        let free = slots.iter_mut().filter(|slot| slot.job.is_none());
        let Some(slot) = free.max_by_key(|slot| fitness(slot)) else {
            waiting.push_front((arrived, request));
            return;
        };
        slot.job = Some(Job::new(request, arrived));
    }
}

/// Tokens at the beginning of both.
pub(crate) fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_share_a_pass_and_leave_room_for_answers() {
        for (reading, jobs, each) in [
            (1, 1, BATCH),
            (2, 2, BATCH / 2),
            (1, 2, BESIDE_ANSWERS),
            (4, 8, BESIDE_ANSWERS / 4),
            (1000, 1001, 1),
        ] {
            assert_eq!(prompt_room(reading, jobs), each, "{reading} of {jobs}");
        }
    }
}
