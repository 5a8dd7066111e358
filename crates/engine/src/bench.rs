//! How fast a model reads and writes, measured as llama-bench does: random tokens, an empty cache
//! before each run. It must not know statistics or output.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    Error, Info, Options, Progress,
    kv_cache::KvCache,
    load::{Loaded, load},
    model::{BATCH, Logits},
};

/// A loaded model to be timed.
pub struct Bench {
    loaded: Loaded,
}

/// What one run does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Tokens that are in the cache before the clock starts.
    pub depth: usize,
    /// Tokens read in batches.
    pub prompt: usize,
    /// Tokens then computed one at a time.
    pub generate: usize,
}

impl std::fmt::Debug for Bench {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bench")
            .field("info", &self.loaded.info)
            .finish_non_exhaustive()
    }
}

impl Bench {
    /// Tokens that go through the model together when it reads.
    pub const BATCH: usize = BATCH;

    /// Loads a model; its context must hold the largest run.
    ///
    /// # Errors
    /// Those of loading.
    pub fn load(options: &Options, progress: &Arc<Progress>) -> Result<Self, Error> {
        let loaded = load(options, progress)?;
        Ok(Self { loaded })
    }

    /// What is being timed.
    pub fn info(&self) -> &Info {
        &self.loaded.info
    }

    /// Time that a run takes, its depth not counted.
    ///
    /// # Errors
    /// [`Error::Options`] for a run that the context does not hold.
    pub fn run(&self, work: Work) -> Result<Duration, Error> {
        let Work {
            depth,
            prompt,
            generate,
        } = work;
        let needed = depth.saturating_add(prompt).saturating_add(generate);
        let context = self.loaded.info.context as usize;
        if needed > context {
            return Err(Error::Options(format!(
                "a run of {needed} tokens does not fit in a context of {context}"
            )));
        }
        let model = &self.loaded.model;
        let mut cache = model.new_cache(needed, self.loaded.info.cache_type)?;
        self.read(depth, &mut cache);

        let begun = Instant::now();
        self.read(prompt, &mut cache);
        for _ in 0..generate {
            let token = self.token(cache.len());
            model.forward(&[token], &mut cache, Logits::Last);
        }
        Ok(begun.elapsed())
    }

    fn read(&self, tokens: usize, cache: &mut KvCache) {
        let first = cache.len();
        let tokens: Vec<u32> = (first..first + tokens).map(|at| self.token(at)).collect();
        for batch in tokens.chunks(BATCH) {
            self.loaded.model.forward(batch, cache, Logits::Last);
        }
    }

    /// A token that looks random and is the same in every run (a step of a 64-bit linear
    /// congruential generator; Knuth's multiplier).
    fn token(&self, at: usize) -> u32 {
        let mixed = (at as u64 + 1).wrapping_mul(6_364_136_223_846_793_005) >> 33;
        u32::try_from(mixed % self.loaded.model.vocab() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::testing::kimi_tiny;

    #[test]
    fn runs_take_time_and_have_to_fit() {
        let options = Options {
            context: Some(48),
            threads: Some(2),
            ..Options::new(kimi_tiny("Q4_K_M"))
        };
        let bench = Bench::load(&options, &Progress::new()).unwrap();
        let work = Work {
            depth: 8,
            prompt: 32,
            generate: 8,
        };
        assert!(bench.run(work).unwrap() > Duration::ZERO);
        let error = bench.run(Work { depth: 9, ..work }).unwrap_err();
        assert!(error.to_string().contains("49 tokens"), "{error}");
    }
}
