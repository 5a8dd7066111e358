//! The other end of the engine's channel, and helpers to send requests to a router.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request as HttpRequest};
use engine::{
    Event, FinishReason, Handle, Info, Logprobs, Progress, Request, Template, Timings, Tokenizer,
    Usage, tokenizer::Vocabulary,
};
use serde_json::Value;
use server::{App, Config};
use tokio::sync::mpsc;
use tower::ServiceExt;

pub(crate) const CONTEXT: u32 = 500;

pub(crate) fn handle(queue: usize) -> (Handle, mpsc::Receiver<Request>) {
    let special = [
        "<|im_user|>",
        "<|im_assistant|>",
        "<|im_system|>",
        "<|im_middle|>",
        "<|im_end|>",
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
        "<think>",
        "</think>",
    ];
    let tokenizer = Tokenizer::new(Vocabulary::bytes(&special)).unwrap();
    let info = Info {
        name: "Kimi Fake".to_owned(),
        architecture: "deepseek2".to_owned(),
        quant: "Q8_0".to_owned(),
        context: CONTEXT,
        trained_context: 4096,
        vocab: 268,
        slots: 1,
        ..Info::default()
    };
    let (sender, receiver) = mpsc::channel(queue);
    let handle = Handle::new(
        sender,
        Arc::new(tokenizer),
        Arc::new(Template::named("kimi-k2-instruct").unwrap()),
        Arc::new(info),
    );
    (handle, receiver)
}

/// A ready server named `kimi`, also known as `fake`, and what its engine would receive.
pub(crate) fn ready() -> (Arc<App>, Router, mpsc::Receiver<Request>) {
    let app = App::new(config(), Progress::new());
    let (handle, requests) = handle(2);
    app.ready(handle);
    (Arc::clone(&app), server::router(app), requests)
}

pub(crate) fn config() -> Config {
    Config {
        names: vec!["kimi".to_owned(), "fake".to_owned()],
        ..Config::default()
    }
}

/// A ready server whose engine gives everybody the same answer.
pub(crate) fn talkative(words: &'static [&'static str]) -> (Arc<App>, Router) {
    let (app, router, mut requests) = ready();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            answer(&request, words).await;
        }
    });
    (app, router)
}

pub(crate) async fn say(request: &Request, word: &str) {
    let event = Event::Token {
        id: 0,
        text: word.to_owned(),
        logprobs: None,
    };
    request.events.send(event).await.unwrap();
}

/// A token of one byte with its likelihood; the likeliest is `x`.
pub(crate) async fn rate(request: &Request, byte: u8, logprob: f32) {
    let event = Event::Token {
        id: byte.into(),
        text: char::from(byte).to_string(),
        logprobs: Some(rated(logprob)),
    };
    request.events.send(event).await.unwrap();
}

pub(crate) fn rated(logprob: f32) -> Logprobs {
    Logprobs {
        logprob,
        top: vec![(u32::from(b'x'), -0.5), (0xe4, f32::NEG_INFINITY)],
    }
}

pub(crate) async fn answer(request: &Request, words: &[&str]) {
    for word in words {
        say(request, word).await;
    }
    finish(request, words.len()).await;
}

pub(crate) async fn finish(request: &Request, words: usize) {
    end(request, words, None).await;
}

/// Ends the answer, with the token that did it where that is reported.
pub(crate) async fn end(request: &Request, words: usize, end: Option<(u32, Logprobs)>) {
    let usage = Usage {
        prompt_tokens: request.tokens.len() as u32,
        cached_tokens: 10,
        completion_tokens: words as u32 + 1,
    };
    let timings = Timings {
        queued: Duration::ZERO,
        prefill: Duration::from_millis(100),
        decode: Duration::from_millis(500),
    };
    let done = Event::Done {
        reason: FinishReason::Stop,
        usage,
        timings,
        end,
    };
    request.events.send(done).await.unwrap();
}

pub(crate) fn get(path: &str) -> HttpRequest<Body> {
    HttpRequest::get(path).body(Body::empty()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<String>) -> HttpRequest<Body> {
    HttpRequest::post(path)
        .body(Body::from(body.into()))
        .unwrap()
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: axum::http::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

pub(crate) async fn send(router: &Router, request: HttpRequest<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    Answer {
        status: parts.status.as_u16(),
        headers: parts.headers,
        text: String::from_utf8(bytes.to_vec()).unwrap(),
    }
}

/// Sends a request that must reach the engine, answers it, and returns what the engine got.
pub(crate) async fn exchange(
    router: &Router,
    requests: &mut mpsc::Receiver<Request>,
    sent: HttpRequest<Body>,
) -> Request {
    let engine = async {
        let request = requests.recv().await.unwrap();
        answer(&request, &["ok"]).await;
        request
    };
    let answered = send(router, sent);
    tokio::pin!(engine, answered);
    let request = tokio::select! {
        request = &mut engine => request,
        refused = &mut answered => panic!("{}", refused.text),
    };
    assert_eq!(answered.await.status, 200);
    request
}
