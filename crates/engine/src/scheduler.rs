//! The engine thread: gives each request a slot with a KV cache of its own, and goes round the slots,
//! one batch of prompt or one token at a time. It must not know arithmetic or HTTP.

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
    kv_cache::{CacheType, KvCache},
    model::Model,
};

/// Requests that wait in the channel, and again that wait in the scheduler.
pub(crate) const QUEUE: usize = 32;

/// How often an idle engine shows that it lives and looks for its end.
const IDLE: Duration = Duration::from_millis(250);

/// Pause when every job waits for its reader.
const BLOCKED: Duration = Duration::from_millis(2);

/// What the engine thread works with.
pub(crate) struct Scheduler {
    pub(crate) model: Arc<Model>,
    pub(crate) tokenizer: Arc<Tokenizer>,
    pub(crate) context: usize,
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

impl Scheduler {
    /// Serves until told to stop or until no handle is left and all requests are answered.
    pub(crate) fn run(mut self, slots: usize, runtime: &tokio::runtime::Runtime) {
        let mut slots: Vec<Slot> = (0..slots)
            .map(|_| Slot {
                cache: self.model.new_cache(self.context, CacheType::F16),
                tokens: Vec::new(),
                job: None,
            })
            .collect();
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
            let mut moved = false;
            for slot in &mut slots {
                moved |= self.step(slot);
            }
            if !moved {
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

    /// One step of a slot's job; false when it could not move.
    fn step(&self, slot: &mut Slot) -> bool {
        let Some(mut job) = slot.job.take() else {
            return false;
        };
        match job.step(&self.model, &self.tokenizer, slot) {
            Step::Moved => slot.job = Some(job),
            Step::Blocked => {
                slot.job = Some(job);
                return false;
            }
            Step::Ended => {}
        }
        true
    }
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
