//! A model in service: loads it, owns its thread, hands out handles. It must not know how requests
//! are made.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use tokio::sync::mpsc;

use crate::{
    Error, Handle, Info, Options, Progress, SelfTest, SelfTestError,
    load::{Loaded, load},
    scheduler::{QUEUE, Scheduler},
    selftest,
};

/// A loaded model and its thread. Dropping it ends the thread after the step under way; requests
/// under way get an error.
pub struct Engine {
    loaded: Loaded,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("info", &self.loaded.info)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Loads the model, which blocks for as long as reading its files takes, and starts serving.
    /// `progress` is touched all the while and afterwards, also when idle.
    ///
    /// # Errors
    /// Whatever is wrong with the options or the files; see [`Error`].
    pub fn start(options: Options, progress: Arc<Progress>) -> Result<(Self, Handle), Error> {
        let loaded = load(&options, &progress)?;
        let context = loaded.info.context as usize;
        let caches = (0..options.slots)
            .map(|_| loaded.model.new_cache(context, options.cache_type))
            .collect::<Result<Vec<_>, _>>()?;
        let (sender, requests) = mpsc::channel(QUEUE);
        let stop = Arc::new(AtomicBool::new(false));
        let handle = Handle::new(
            sender,
            Arc::clone(&loaded.tokenizer),
            Arc::clone(&loaded.template),
            Arc::clone(&loaded.info),
        );
        let scheduler = Scheduler {
            model: Arc::clone(&loaded.model),
            tokenizer: Arc::clone(&loaded.tokenizer),
            requests,
            progress,
            status: Arc::clone(handle.status()),
            stop: Arc::clone(&stop),
        };
        let failed = |error: std::io::Error| Error::Resources(format!("engine thread: {error}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .map_err(failed)?;
        let thread = thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || scheduler.run(caches, &runtime))
            .map_err(failed)?;
        Ok((
            Self {
                loaded,
                stop,
                thread: Some(thread),
            },
            handle,
        ))
    }

    /// What is being served.
    pub fn info(&self) -> &Info {
        &self.loaded.info
    }

    /// Asks the model things that any sound model answers. Blocks for about a hundred tokens' time;
    /// runs beside requests.
    ///
    /// # Errors
    /// The first sign that the weights do not make sense.
    pub fn self_test(&self) -> Result<SelfTest, SelfTestError> {
        selftest::run(&self.loaded)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to wait for.
            let _ = thread.join();
        }
    }
}
