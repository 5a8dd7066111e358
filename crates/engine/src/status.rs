//! What the slots are doing now: written by the engine's thread at every step, read by anybody at any
//! time. It must not know requests.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};

/// The state of all slots and of the queue behind them.
#[derive(Debug)]
pub struct Status {
    waiting: AtomicUsize,
    slots: Vec<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    is_busy: AtomicBool,
    prompt: AtomicU32,
    cached: AtomicU32,
    generated: AtomicU32,
}

/// The state of one slot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SlotStatus {
    /// Whether a request has it.
    pub is_busy: bool,
    /// Tokens of the prompt of its request, or of the last one it had.
    pub prompt_tokens: u32,
    /// Tokens in its KV cache.
    pub cached_tokens: u32,
    /// Tokens generated for its request, or for the last one it had.
    pub generated_tokens: u32,
}

impl Status {
    /// So many slots, all free.
    pub fn new(slots: usize) -> Self {
        Self {
            waiting: AtomicUsize::new(0),
            slots: (0..slots).map(|_| Slot::default()).collect(),
        }
    }

    /// The slots in order.
    pub fn slots(&self) -> Vec<SlotStatus> {
        self.slots.iter().map(Slot::read).collect()
    }

    /// Slots that have a request.
    pub fn busy(&self) -> usize {
        let busy = |slot: &&Slot| slot.is_busy.load(Relaxed);
        self.slots.iter().filter(busy).count()
    }

    /// Requests that the engine has taken from its channel and that wait for a slot.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    pub(crate) fn set_waiting(&self, requests: usize) {
        self.waiting.store(requests, Relaxed);
    }

    pub(crate) fn set_slot(&self, at: usize, now: SlotStatus) {
        let Some(slot) = self.slots.get(at) else {
            return;
        };
        slot.is_busy.store(now.is_busy, Relaxed);
        slot.prompt.store(now.prompt_tokens, Relaxed);
        slot.cached.store(now.cached_tokens, Relaxed);
        slot.generated.store(now.generated_tokens, Relaxed);
    }
}

impl Slot {
    fn read(&self) -> SlotStatus {
        SlotStatus {
            is_busy: self.is_busy.load(Relaxed),
            prompt_tokens: self.prompt.load(Relaxed),
            cached_tokens: self.cached.load(Relaxed),
            generated_tokens: self.generated.load(Relaxed),
        }
    }
}
