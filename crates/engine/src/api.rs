//! What the rest of the workspace says to the engine and hears from it: plain types, one channel in,
//! one channel out per request. It must not know how tokens are computed, so that a test can stand in
//! for the engine with a [`Handle::new`] and the other end of its channel.

use std::{
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sizing::CacheType;
use tokio::sync::mpsc;

use crate::{
    AnswerFormat, ChatMessage, Constraint, Error, Files, Rendering, Status, Template,
    TemplateChoice, Tokenizer, chat::numbered, constraint::Grammars,
};

/// How to load a model.
#[derive(Debug, Clone)]
pub struct Options {
    /// The first shard, a single file, or a directory that holds one model.
    pub model: PathBuf,
    /// Tokens of context per slot; `None` takes the smaller of the model's own and
    /// [`Options::DEFAULT_CONTEXT`].
    pub context: Option<u32>,
    /// Worker threads; `None` takes what this process may run on.
    pub threads: Option<usize>,
    /// Requests served at the same time, each with its own KV cache; at least 1.
    pub slots: usize,
    /// How KV caches are stored.
    pub cache_type: CacheType,
    /// Another engine whose deviations from the model to reproduce, so that logits can be compared.
    pub compat: Option<Compat>,
    /// How conversations are worded.
    pub template: TemplateChoice,
    /// What activations are rounded to before a product with quantized weights.
    pub activations: ActivationType,
}

/// An engine that deviates from the models' own code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compat {
    /// llama.cpp, which does not read YaRN's `beta_fast` from `deepseek2` files and takes 32, where
    /// Kimi-K2 has 1.
    LlamaCpp,
}

impl std::str::FromStr for Compat {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "llama.cpp" => Ok(Self::LlamaCpp),
            other => Err(Error::Options(format!(
                "there is no compatibility with '{other}'; there is: llama.cpp"
            ))),
        }
    }
}

/// What activations are rounded to before a product with quantized weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ActivationType {
    /// Eight bits with one scale for 256 values (32 for types with blocks of 32), as llama.cpp does on a CPU: several
    /// times faster.
    #[default]
    Int8,
    /// Not at all: only the weights are quantized. For judging files.
    F32,
}

impl ActivationType {
    /// The name that command lines use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "int8",
            Self::F32 => "f32",
        }
    }
}

impl std::fmt::Display for ActivationType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for ActivationType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        [Self::Int8, Self::F32]
            .into_iter()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| {
                Error::Options(format!(
                    "'{name}' is no type of activations; use int8 or f32"
                ))
            })
    }
}

impl Options {
    /// Context of a slot when nobody asks for one: long enough for a chat, 2 GiB or less of cache on
    /// the largest Kimi.
    pub const DEFAULT_CONTEXT: u32 = 32_768;

    /// Options that only name the model: one slot, everything else chosen by the engine.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            context: None,
            threads: None,
            slots: 1,
            cache_type: CacheType::default(),
            compat: None,
            template: TemplateChoice::Model,
            activations: ActivationType::default(),
        }
    }
}

/// The engine's heartbeat: touched by the load, by every task of every step and also when idle, so
/// that a liveness probe can tell slow from stuck.
#[derive(Debug)]
pub struct Progress {
    started: Instant,
    touched_ms: AtomicU64,
    bytes_loaded: AtomicU64,
    bytes_total: AtomicU64,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            touched_ms: AtomicU64::new(0),
            bytes_loaded: AtomicU64::new(0),
            bytes_total: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// A heartbeat that starts now.
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Says that the engine moved. Cheap enough for every task of every thread: the shared value
    /// is written at most once a millisecond.
    pub fn touch(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if now > self.touched_ms.load(Ordering::Relaxed) {
            self.touched_ms.fetch_max(now, Ordering::Relaxed);
        }
    }

    /// Time since the engine last moved.
    pub fn since_touch(&self) -> Duration {
        let touched = Duration::from_millis(self.touched_ms.load(Ordering::Relaxed));
        self.started.elapsed().saturating_sub(touched)
    }

    /// Bytes of the model that will be read; 0 before its headers are known.
    pub fn bytes_total(&self) -> u64 {
        self.bytes_total.load(Ordering::Relaxed)
    }

    /// Bytes of the model read so far.
    pub fn bytes_loaded(&self) -> u64 {
        self.bytes_loaded.load(Ordering::Relaxed)
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.bytes_total.store(bytes, Ordering::Relaxed);
        self.touch();
    }

    pub(crate) fn add_loaded(&self, bytes: u64) {
        self.bytes_loaded.fetch_add(bytes, Ordering::Relaxed);
        self.touch();
    }
}

/// What a model file says about itself and how it is being run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// `general.name`, or the file's stem.
    pub name: String,
    /// `general.architecture`.
    pub architecture: String,
    /// The quantisation that most bytes of the file are in, as its file type says: `Q4_K_M`.
    pub quant: String,
    /// `tokenizer.chat_template`, as it is.
    pub chat_template: Option<String>,
    /// Tokens of context per slot.
    pub context: u32,
    /// Tokens of context the model was trained for.
    pub trained_context: u32,
    /// Tokens in the vocabulary.
    pub vocab: u32,
    /// Weights.
    pub parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// Bytes of KV cache over all slots.
    pub kv_bytes: u64,
    /// How KV caches are stored.
    pub cache_type: CacheType,
    /// Requests served at the same time.
    pub slots: usize,
    /// Worker threads.
    pub threads: usize,
    /// What it was read from, to see whether that is still there.
    pub files: Files,
}

/// How to choose the next token. The default is Moonshot's advice for Kimi-K2-Instruct.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// 0 is greedy: always the likeliest token, whatever the other fields say about chance.
    pub temperature: f32,
    /// Keep the k likeliest; 0 keeps all.
    pub top_k: u32,
    /// Keep the likeliest tokens that together hold this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens already seen; 1 is off.
    pub repetition_penalty: f32,
    /// Taken once from each token already generated; 0 is off.
    pub presence_penalty: f32,
    /// Taken per occurrence from each token already generated; 0 is off.
    pub frequency_penalty: f32,
    /// The same seed and request give the same text on the same machine; `None` draws a seed.
    pub seed: Option<u64>,
    /// Added to the logit of a token id.
    pub logit_bias: Vec<(u32, f32)>,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.6,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.01,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: None,
            logit_bias: Vec::new(),
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self {
            temperature: 0.0,
            ..Self::default()
        }
    }
}

/// One generation. Dropping the receiver of `events` cancels it.
#[derive(Debug)]
pub struct Request {
    /// The whole prompt, special tokens included.
    pub tokens: Vec<u32>,
    /// At most this many tokens; `None` goes on to the end of the context.
    pub max_tokens: Option<u32>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Text that ends the generation; it is not sent.
    pub stop: Vec<String>,
    /// What the answer must look like.
    pub constraint: Option<Constraint>,
    /// Report how likely each token of the answer was, beside so many likeliest ones.
    pub logprobs: Option<u32>,
    /// Report the same of the prompt's tokens, which takes them all through the model: none of the
    /// KV cache of an earlier request is used. Without effect unless `logprobs` is set.
    pub prompt_logprobs: bool,
    /// Where the answer goes. A full channel makes this request wait, not the others.
    pub events: mpsc::Sender<Event>,
}

impl Request {
    /// A request for an answer of any length, with everything else as it is by default.
    pub fn new(tokens: Vec<u32>, events: mpsc::Sender<Event>) -> Self {
        Self {
            tokens,
            max_tokens: None,
            sampling: Sampling::default(),
            stop: Vec::new(),
            constraint: None,
            logprobs: None,
            prompt_logprobs: false,
            events,
        }
    }
}

/// How likely the model held a token, as natural logarithms of probabilities before bias, penalties,
/// constraint and temperature.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Logprobs {
    /// Of the token itself.
    pub logprob: f32,
    /// The likeliest tokens, likeliest first.
    pub top: Vec<(u32, f32)>,
}

/// What a request hears, in order: the prompt where it was asked for, tokens, then exactly one `Done`
/// or `Error`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The next tokens of the prompt, from its second one on: nothing predicts the first.
    Prompt(Vec<Logprobs>),
    /// One more token. `text` holds the characters it completes, none while one is unfinished; a
    /// last unfinished one may come as U+FFFD with a repeated id, so count tokens by [`Usage`].
    /// Tokens that may belong to a stop string come late or not at all. A special token comes alone,
    /// with its name as text (`<|tool_call_begin|>`): [`Tokenizer::is_special`] tells it from
    /// ordinary text that looks alike. The token that ends the answer is not sent.
    Token {
        /// Token id.
        id: u32,
        /// Whole characters.
        text: String,
        /// How likely it was, where asked for.
        logprobs: Option<Logprobs>,
    },
    /// The generation ended well.
    Done {
        /// Why it ended.
        reason: FinishReason,
        /// Tokens in and out.
        usage: Usage,
        /// Time spent.
        timings: Timings,
        /// The token that ended the answer, where one did and logprobs were asked for.
        end: Option<(u32, Logprobs)>,
    },
    /// The request cannot be served; the text says what to change.
    Error(String),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn, or a stop string appeared.
    Stop,
    /// `max_tokens` or the context is used up.
    Length,
}

/// Tokens of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Of these, tokens whose KV cache was reused from the slot's request before.
    pub cached_tokens: u32,
    /// Tokens generated, the one that ended the answer included.
    pub completion_tokens: u32,
}

/// Wall-clock times of one request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Timings {
    /// From the engine's taking notice of the request to its first step.
    pub queued: Duration,
    /// Evaluating the prompt's new tokens.
    pub prefill: Duration,
    /// Generating, from the first to the last token.
    pub decode: Duration,
}

/// Why a request was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The queue is full.
    #[error("all slots and the queue are full; try again in a moment")]
    Busy,
    /// The engine has ended.
    #[error("the engine has stopped")]
    Stopped,
}

/// A way to the engine that can be cloned and shared.
#[derive(Debug, Clone)]
pub struct Handle {
    requests: mpsc::Sender<Request>,
    tokenizer: Arc<Tokenizer>,
    template: Arc<Template>,
    info: Arc<Info>,
    status: Arc<Status>,
    grammars: Arc<OnceLock<Result<Grammars, String>>>,
}

impl Handle {
    /// A handle whose requests go to `requests`; tests answer them from the other end.
    pub fn new(
        requests: mpsc::Sender<Request>,
        tokenizer: Arc<Tokenizer>,
        template: Arc<Template>,
        info: Arc<Info>,
    ) -> Self {
        Self {
            requests,
            tokenizer,
            template,
            status: Arc::new(Status::new(info.slots)),
            info,
            grammars: Arc::default(),
        }
    }

    /// Queues a request without waiting.
    ///
    /// # Errors
    /// [`SubmitError::Busy`] when the queue is full, [`SubmitError::Stopped`] when the engine ended.
    pub fn submit(&self, request: Request) -> Result<(), SubmitError> {
        self.requests
            .try_send(request)
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => SubmitError::Busy,
                mpsc::error::TrySendError::Closed(_) => SubmitError::Stopped,
            })
    }

    /// Queues a request as soon as the queue has room.
    ///
    /// # Errors
    /// [`SubmitError::Stopped`] when the engine ended.
    pub async fn submit_when_free(&self, request: Request) -> Result<(), SubmitError> {
        let sent = self.requests.send(request).await;
        sent.map_err(|_| SubmitError::Stopped)
    }

    /// Makes a constraint. The first one builds a table of the whole vocabulary, and a large schema
    /// takes as long as its size says, so this is not for threads that must not block.
    ///
    /// # Errors
    /// [`Error::Constraint`] when the format asks for what cannot be guaranteed.
    pub fn constraint(&self, format: &AnswerFormat) -> Result<Constraint, Error> {
        let grammars = self
            .grammars
            .get_or_init(|| Grammars::new(&self.tokenizer).map_err(|error| error.to_string()));
        match grammars {
            Ok(grammars) => grammars.constraint(format),
            Err(words) => Err(Error::Constraint(words.clone())),
        }
    }

    /// The prompt of a conversation as tokens. Ids of calls that are not of Kimi's form are written
    /// in it, as the model was trained.
    ///
    /// # Errors
    /// [`Error::Template`] when the model's template refuses the conversation.
    pub fn chat_tokens(
        &self,
        messages: &[ChatMessage],
        rendering: Rendering<'_>,
    ) -> Result<Vec<u32>, Error> {
        self.template
            .render(&self.tokenizer, &numbered(messages), rendering)
    }

    /// Text to tokens and back.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Conversations to prompts.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// What is being served.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// What the slots are doing.
    pub fn status(&self) -> &Arc<Status> {
        &self.status
    }

    /// Requests that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.status.waiting() + self.requests.max_capacity() - self.requests.capacity()
    }
}
