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
    Progress, Request, SlotStatus, Status, Tokenizer,
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
    pub(crate) status: Arc<Status>,
    pub(crate) stop: Arc<AtomicBool>,
}

/// A KV cache and the request that has it. The cache outlives the request, for the next one that
/// begins alike.
pub(crate) struct Slot {
    pub(crate) cache: KvCache,
    /// Tokens in the cache.
    pub(crate) tokens: Vec<u32>,
    job: Option<Job>,
    /// Of the request that has it, or had it last.
    status: SlotStatus,
    /// The number of the last request that had it; 0 before the first.
    used: u64,
}

impl Slot {
    fn new(cache: KvCache) -> Self {
        Self {
            cache,
            tokens: Vec::new(),
            job: None,
            status: SlotStatus::default(),
            used: 0,
        }
    }
}

impl Scheduler {
    /// Serves as many requests at a time as there are caches, until told to stop or until no handle is
    /// left and all requests are answered.
    pub(crate) fn run(mut self, caches: Vec<KvCache>, runtime: &tokio::runtime::Runtime) {
        let mut slots: Vec<Slot> = caches.into_iter().map(Slot::new).collect();
        let mut waiting = VecDeque::new();
        let mut admitted = 0;
        let mut open = true;
        while !self.stop.load(Ordering::Relaxed) {
            self.progress.touch();
            open &= self.take_requests(&mut waiting);
            admit(&mut waiting, &mut slots, &mut admitted);
            self.status.set_waiting(waiting.len());
            self.tell(&slots);

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

    /// Shows what the slots are doing.
    fn tell(&self, slots: &[Slot]) {
        for (at, slot) in slots.iter().enumerate() {
            let now = SlotStatus {
                is_busy: slot.job.is_some(),
                cached_tokens: u32::try_from(slot.tokens.len()).unwrap_or(u32::MAX),
                ..slot.status
            };
            self.status.set_slot(at, now);
        }
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
            let step = job.take(logits, time, &self.tokenizer, slot);
            slot.status = job.status();
            if step != Step::Ended {
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

/// Gives waiting requests to free slots.
fn admit(waiting: &mut VecDeque<(Instant, Request)>, slots: &mut [Slot], admitted: &mut u64) {
    waiting.retain(|(_, request)| !request.events.is_closed());
    while let Some((arrived, request)) = waiting.pop_front() {
        let is_free = |at: &usize| slots[*at].job.is_none();
        let fitness = |at: &usize| fitness(&slots[*at].tokens, slots[*at].used, &request.tokens);
        // Among equals `max_by_key` takes the last, so that this takes the first.
        let free = (0..slots.len()).rev().filter(is_free);
        let Some(at) = free.max_by_key(fitness) else {
            waiting.push_front((arrived, request));
            return;
        };
        share_beginning(slots, at, &request.tokens);
        *admitted += 1;
        let slot = &mut slots[at];
        slot.used = *admitted;
        let job = Job::new(request, arrived);
        slot.status = job.status();
        slot.job = Some(job);
    }
}

/// Brings the beginning of a prompt into slot `at` from the slot that has most of it, busy or not: to
/// copy rows takes a small part of the time that it takes to compute them.
fn share_beginning(slots: &mut [Slot], at: usize, prompt: &[u32]) {
    let alike = |at: usize| common(&slots[at].tokens, prompt);
    let others = (0..slots.len()).filter(|other| *other != at);
    let Some(other) = others.max_by_key(|other| alike(*other)) else {
        return;
    };
    let shared = alike(at)..alike(other);
    if shared.is_empty() {
        return;
    }
    if let Ok([to, from]) = slots.get_disjoint_mut([at, other]) {
        to.cache.copy_from(&from.cache, shared);
        to.tokens = prompt[..to.cache.len()].to_vec();
    }
}

/// How well a prompt goes into a slot whose cache holds `tokens` and whose last request was number
/// `used`. Best is the cache that begins most like the prompt, if more of it can be kept than is thrown
/// away; a few words that all conversations begin with must not cost somebody a long one. Else the
/// slot that nobody has come back to for longest.
fn fitness(tokens: &[u32], used: u64, prompt: &[u32]) -> (usize, std::cmp::Reverse<u64>) {
    let alike = common(tokens, prompt);
    let kept = if 2 * alike > tokens.len() { alike } else { 0 };
    (kept, std::cmp::Reverse(used))
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

    /// Which of the slots, given as (tokens, used), gets the prompt.
    fn chosen(slots: &[(&[u32], u64)], prompt: &[u32]) -> usize {
        let fitness = |at: &usize| fitness(slots[*at].0, slots[*at].1, prompt);
        (0..slots.len())
            .rev()
            .max_by_key(fitness)
            .unwrap_or_default()
    }

    #[test]
    fn a_conversation_goes_on_in_its_slot() {
        let slots: [(&[u32], u64); 3] = [(&[1, 2, 3, 4], 3), (&[1, 2, 9], 2), (&[], 0)];
        assert_eq!(chosen(&slots, &[1, 2, 3, 4, 5]), 0);
        assert_eq!(chosen(&slots, &[1, 2, 9, 9]), 1);
        // The end of the answer before was rendered otherwise.
        assert_eq!(chosen(&slots, &[1, 2, 3, 7]), 0);
    }

    #[test]
    fn a_new_conversation_goes_where_least_is_lost() {
        let long: Vec<u32> = (0..100).collect();
        let slots: [(&[u32], u64); 3] = [(&long, 1), (&[0, 1, 50], 2), (&[7], 3)];
        assert_eq!(chosen(&slots, &[0, 1, 60]), 1, "two of three are kept");
        assert_eq!(chosen(&slots[..1], &[0, 1, 60]), 0, "there is no other");
        assert_eq!(chosen(&slots, &[8]), 0, "the oldest");
        let slots: [(&[u32], u64); 2] = [(&long, 1), (&[], 0)];
        assert_eq!(chosen(&slots, &[0, 1, 60]), 1, "an unused one first");
    }
}
