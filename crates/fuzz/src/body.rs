//! Bodies of requests: to every route that takes one, in process, over an engine that answers with the end of the
//! prompt. The answer is JSON or events, and the fault is the client's and named, never ours.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::Request as HttpRequest,
};
use engine::{
    Event, FinishReason, Handle, Info, Logprobs, Progress, Request, Template, Timings, Tokenizer,
    Usage, tokenizer::StreamDecoder,
};
use serde_json::Value;
use server::{App, Config};
use tokio::{runtime::Runtime, sync::mpsc};
use tower::ServiceExt;

use crate::template;

pub(crate) const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "true",
    "false",
    "-1",
    "0",
    "1e999",
    "4294967296",
    "\\ud83d",
    "\\u0000",
    "\"messages\":",
    "\"role\":",
    "\"user\"",
    "\"assistant\"",
    "\"tool\"",
    "\"system\"",
    "\"content\":",
    "\"type\":",
    "\"text\"",
    "\"tools\":",
    "\"tool_calls\":",
    "\"function\":",
    "\"name\":",
    "\"arguments\":",
    "\"parameters\":",
    "\"tool_choice\":\"required\"",
    "\"response_format\":",
    "\"json_schema\"",
    "\"json_object\"",
    "\"schema\":",
    "\"properties\":",
    "\"required\":",
    "\"enum\":",
    "\"anyOf\":",
    "\"oneOf\":",
    "\"allOf\":",
    "\"$ref\":\"#\"",
    "\"$defs\":",
    "\"additionalProperties\":",
    "\"items\":",
    "\"minItems\":",
    "\"maxItems\":",
    "\"minLength\":",
    "\"maxLength\":",
    "\"pattern\":\"(a|b)*\"",
    "\"format\":\"date-time\"",
    "\"minimum\":",
    "\"multipleOf\":",
    "\"const\":",
    "\"stream\":true",
    "\"n\":3",
    "\"stop\":",
    "\"logprobs\":",
    "\"top_logprobs\":5",
    "\"echo\":true",
    "\"max_tokens\":",
    "\"temperature\":",
    "\"logit_bias\":{\"5\":-100}",
    "\"prompt\":",
    "\"tokens\":",
    "\"seed\":",
    "\"chat_template_kwargs\":{\"thinking\":false}",
    "<|im_end|>",
    "<think>",
    "<|tool_calls_section_begin|>",
];

const ROUTES: [&str; 5] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/tokenize",
    "/detokenize",
    "/apply-template",
];

/// Tokens of an answer.
const ANSWER: usize = 24;

struct Server {
    runtime: Runtime,
    router: Router,
}

static SERVER: LazyLock<Mutex<Server>> = LazyLock::new(|| Mutex::new(Server::start()));

pub(crate) fn run(bytes: &[u8]) {
    let server = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    for route in ROUTES {
        let (status, text) = server.send(route, bytes);
        let words = || String::from_utf8_lossy(&text);
        match status {
            200 => assert!(
                text.starts_with(b"data: ") || serde_json::from_slice::<Value>(&text).is_ok(),
                "{route}: {}",
                words()
            ),
            400..500 => {
                let error: Value = serde_json::from_slice(&text).unwrap_or_default();
                let message = error.pointer("/error/message").and_then(Value::as_str);
                assert!(
                    message.is_some_and(|message| !message.is_empty()),
                    "{route}: {}",
                    words()
                );
            }
            _ => unreachable!("{route}: {status}: {}", words()),
        }
    }
}

impl Server {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let tokenizer = Arc::new(template::tokenizer());
        let info = Info {
            name: "Kimi".to_owned(),
            quant: "Q8_0".to_owned(),
            context: 4096,
            trained_context: 4096,
            vocab: u32::try_from(tokenizer.vocab()).unwrap_or(u32::MAX),
            slots: 1,
            ..Info::default()
        };
        // The revision whose wording takes most code.
        let template = Template::named("kimi-k2.5").expect("the name is known");
        let (sender, requests) = mpsc::channel(2);
        let app = App::new(Config::default(), Progress::new());
        app.ready(Handle::new(
            sender,
            Arc::clone(&tokenizer),
            Arc::new(template),
            Arc::new(info),
        ));
        runtime.spawn(answer_all(requests, tokenizer));
        Self {
            runtime,
            router: server::router(app),
        }
    }

    /// Status and body of the answer.
    fn send(&self, route: &str, bytes: &[u8]) -> (u16, Vec<u8>) {
        let request = HttpRequest::post(route)
            .body(Body::from(bytes.to_vec()))
            .expect("the route is one");
        self.runtime.block_on(async {
            let Ok(response) = self.router.clone().oneshot(request).await;
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), usize::MAX).await;
            (status, body.expect("an answer ends").to_vec())
        })
    }
}

async fn answer_all(mut requests: mpsc::Receiver<Request>, tokenizer: Arc<Tokenizer>) {
    while let Some(request) = requests.recv().await {
        for event in answer(&request, &tokenizer) {
            // A client that asked for several answers may have been refused one.
            _ = request.events.send(event).await;
        }
    }
}

/// The end of the prompt, token by token: it may hold calls and thoughts.
fn answer(request: &Request, tokenizer: &Tokenizer) -> Vec<Event> {
    let Request {
        tokens,
        max_tokens,
        logprobs,
        prompt_logprobs,
        ..
    } = request;
    let rated = || Logprobs {
        logprob: -0.5,
        top: vec![(1, -0.5); logprobs.unwrap_or_default() as usize],
    };
    let mut events = Vec::new();
    if *prompt_logprobs {
        events.push(Event::Prompt(vec![rated(); tokens.len() - 1]));
    }
    let count = max_tokens.map_or(ANSWER, |most| ANSWER.min(most as usize));
    let answer = &tokens[tokens.len().saturating_sub(count)..];
    let mut decoder = StreamDecoder::default();
    events.extend(answer.iter().map(|id| Event::Token {
        id: *id,
        text: decoder.push(tokenizer.token_bytes(*id)),
        logprobs: logprobs.map(|_| rated()),
    }));
    let usage = Usage {
        prompt_tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
        cached_tokens: 0,
        completion_tokens: u32::try_from(answer.len()).unwrap_or(u32::MAX),
    };
    events.push(Event::Done {
        reason: FinishReason::Stop,
        usage,
        timings: Timings::default(),
        end: None,
    });
    events
}
