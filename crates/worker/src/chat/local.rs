//! Answers by the engine in this process. It must not know terminals, but for the bar that shows how far
//! loading is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context;
use engine::{
    ChatMessage, Engine, Event, FinishReason, Handle, Options, Part, Progress, Rendering, Request,
    Sampling, TurnParser,
};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::backend::{Speed, Wishes};

/// Events the engine may be ahead of the terminal.
const AHEAD: usize = 1024;

pub(crate) struct Local {
    /// Lives as long as answers are wanted.
    _engine: Engine,
    handle: Handle,
}

impl Local {
    /// Loads the model.
    pub(crate) fn start(options: Options) -> anyhow::Result<Self> {
        let progress = Progress::new();
        let loaded = AtomicBool::new(false);
        let started = thread::scope(|scope| {
            scope.spawn(|| show_progress(&progress, &loaded));
            let started = Engine::start(options, Arc::clone(&progress));
            loaded.store(true, Ordering::Relaxed);
            started
        });
        let (engine, handle) = started.context("cannot load the model")?;
        Ok(Self {
            _engine: engine,
            handle,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.handle.info().name
    }

    pub(crate) async fn answer(
        &self,
        messages: &[ChatMessage],
        wishes: &Wishes,
        show: &mut dyn FnMut(Part),
    ) -> anyhow::Result<Speed> {
        let mut speed = Speed::start();
        let rendering = Rendering {
            thinking: wishes.thinking,
            ..Rendering::answer()
        };
        let tokens = self.handle.chat_tokens(messages, rendering)?;
        let mut parser = TurnParser::new(self.handle.tokenizer(), &tokens, messages);
        let advice = Sampling::default();
        let (sender, mut events) = mpsc::channel(AHEAD);
        self.handle.submit(Request {
            max_tokens: wishes.max_tokens,
            sampling: Sampling {
                temperature: wishes.temperature.unwrap_or(advice.temperature),
                seed: wishes.seed,
                ..advice
            },
            ..Request::new(tokens, sender)
        })?;
        while let Some(event) = events.recv().await {
            match event {
                Event::Token { id, text, .. } => {
                    speed.tick();
                    parser.push(id, &text).into_iter().for_each(&mut *show);
                }
                Event::Done { reason, usage, .. } => {
                    speed.tick();
                    parser.finish().into_iter().for_each(&mut *show);
                    speed.count(usage.prompt_tokens, usage.completion_tokens);
                    if reason == FinishReason::Length {
                        speed.cut();
                    }
                    return Ok(speed);
                }
                Event::Error(message) => anyhow::bail!(message),
                // Nobody asked for it.
                Event::Prompt(_) => {}
            }
        }
        anyhow::bail!("the engine has stopped")
    }
}

/// Draws how much is loaded, where standard error is a terminal.
fn show_progress(progress: &Progress, loaded: &AtomicBool) {
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("loading {bytes} of {total_bytes} {bar:30}") {
        bar.set_style(style);
    }
    while !loaded.load(Ordering::Relaxed) {
        bar.set_length(progress.bytes_total());
        bar.set_position(progress.bytes_loaded());
        thread::sleep(Duration::from_millis(50));
    }
    bar.finish_and_clear();
}
