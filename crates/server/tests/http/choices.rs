//! Answers of more than one choice, echoed prompts, and how likely tokens were, in both of OpenAI's
//! shapes.

use engine::{Event, Request};
use serde_json::{Value, json};

use crate::{
    fake::{self, post, send},
    routes::{events, parsed},
};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

/// Sends `body` to a server whose engine answers each request with what `answer` does.
async fn ask<F: Future<Output = ()> + Send>(
    path: &str,
    body: Value,
    answer: impl Fn(usize, Request) -> F + Send + 'static,
) -> fake::Answer {
    let (_app, router, mut requests) = fake::ready();
    tokio::spawn(async move {
        let mut number = 0;
        while let Some(request) = requests.recv().await {
            answer(number, request).await;
            number += 1;
        }
    });
    send(&router, post(path, body.to_string())).await
}

#[tokio::test]
async fn several_answers_to_several_prompts() {
    let body = json!({"prompt": ["ab", "c"], "n": 2, "seed": 7, "max_tokens": 3});
    let answer = ask(TEXT, body.clone(), |number, request| async move {
        assert_eq!(request.sampling.seed, Some(7 + number as u64 % 2));
        assert_eq!(request.tokens.len(), if number < 2 { 2 } else { 1 });
        fake::answer(&request, &[&number.to_string()]).await;
    })
    .await
    .json();
    for (index, text) in ["0", "1", "2", "3"].iter().enumerate() {
        assert_eq!(answer["choices"][index]["index"], index);
        assert_eq!(answer["choices"][index]["text"], *text);
    }
    // Each prompt counts once, each answer by itself.
    assert_eq!(answer["usage"]["prompt_tokens"], 3);
    assert_eq!(answer["usage"]["completion_tokens"], 8);
    assert_eq!(
        answer["usage"]["prompt_tokens_details"]["cached_tokens"],
        20
    );
    assert_eq!(answer.get("timings"), None, "times of one answer only");

    let mut streamed = body;
    streamed["stream"] = true.into();
    streamed["stream_options"] = json!({"include_usage": true});
    let answer = ask(TEXT, streamed, |number, request| async move {
        fake::answer(&request, &[&number.to_string(), "."]).await;
    })
    .await;
    let events = events(&answer.text);
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(*last, "[DONE]");
    let chunks = parsed(chunks);
    let mut texts = [const { String::new() }; 4];
    for choice in chunks.iter().filter_map(|chunk| chunk["choices"].get(0)) {
        let index = choice["index"].as_u64().unwrap() as usize;
        texts[index] += choice["text"].as_str().unwrap();
    }
    assert_eq!(texts, ["0.", "1.", "2.", "3."]);
    assert_eq!(chunks.last().unwrap()["usage"]["completion_tokens"], 12);
}

#[tokio::test]
async fn one_failing_answer_fails_the_request() {
    let body = json!({"messages": [{"role": "user", "content": "x"}], "n": 3});
    let answer = ask(CHAT, body, |number, request| async move {
        if number == 1 {
            let event = Event::Error("the logits are not finite".to_owned());
            request.events.send(event).await.unwrap();
        } else {
            fake::answer(&request, &["fine"]).await;
        }
    })
    .await;
    assert_eq!(answer.status, 500);
    assert_eq!(
        answer.json()["error"]["message"],
        "the logits are not finite"
    );
}

#[tokio::test]
async fn chat_reports_likelihoods() {
    async fn rate(request: Request) {
        assert_eq!(request.logprobs, Some(2));
        assert!(!request.prompt_logprobs);
        fake::rate(&request, b'a', -1.5).await;
        fake::end(&request, 1, Some((260, fake::rated(-0.1)))).await;
    }
    let mut body = json!({
        "messages": [{"role": "user", "content": "x"}], "logprobs": true, "top_logprobs": 2,
    });
    let expected = json!({
        "content": [{
            "token": "a", "logprob": -1.5, "bytes": [97],
            "top_logprobs": [
                {"token": "x", "logprob": -0.5, "bytes": [120]},
                {"token": "\u{fffd}", "logprob": -9999.0, "bytes": [228]},
            ],
        }],
        "refusal": null,
    });
    let answer = ask(CHAT, body.clone(), |_, request| rate(request))
        .await
        .json();
    assert_eq!(answer["choices"][0]["logprobs"], expected);

    body["stream"] = true.into();
    let answer = ask(CHAT, body, |_, request| rate(request)).await;
    let events = events(&answer.text);
    let chunks = parsed(&events[..events.len() - 1]);
    assert_eq!(chunks[1]["choices"][0]["logprobs"], expected);
    assert_eq!(chunks[2]["choices"][0]["logprobs"], Value::Null);
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
}

/// What lm-evaluation-harness asks for: token ids, echo, one alternative, one token of answer.
#[tokio::test]
async fn an_echoed_prompt_is_scored() {
    async fn score(request: Request) {
        assert_eq!(request.logprobs, Some(1));
        assert!(request.prompt_logprobs);
        assert_eq!(request.max_tokens, Some(1));
        let scored = [-1.0, -2.0].map(fake::rated).to_vec();
        request.events.send(Event::Prompt(scored)).await.unwrap();
        let rest = vec![fake::rated(-3.0)];
        request.events.send(Event::Prompt(rest)).await.unwrap();
        fake::end(&request, 0, Some((260, fake::rated(-0.1)))).await;
    }
    // "a", both bytes of "é", "b".
    let ids = [0x61, 0xc3, 0xa9, 0x62];
    let body = json!({"prompt": [ids], "max_tokens": 1, "logprobs": 1, "echo": true});
    let answer = ask(TEXT, body.clone(), |_, request| score(request))
        .await
        .json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["text"], "aéb");
    let logprobs = &choice["logprobs"];
    assert_eq!(
        logprobs["tokens"],
        json!(["a", "bytes:\\xc3", "bytes:\\xa9", "b", "<|im_end|>"])
    );
    assert_eq!(
        logprobs["token_logprobs"],
        json!([null, -1.0, -2.0, -3.0, -0.1])
    );
    assert_eq!(logprobs["text_offset"], json!([0, 1, 1, 2, 3]));
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert_eq!(
        logprobs["top_logprobs"][1],
        json!({"bytes:\\xc3": -1.0, "x": -0.5, "bytes:\\xe4": -9999.0})
    );

    let mut streamed = body;
    streamed["stream"] = true.into();
    let answer = ask(TEXT, streamed, |_, request| score(request)).await;
    let events = events(&answer.text);
    let chunks = parsed(&events[..events.len() - 1]);
    assert_eq!(chunks[0]["choices"][0]["text"], "aéb");
    assert_eq!(
        chunks[0]["choices"][0]["logprobs"]["token_logprobs"],
        json!([null, -1.0, -2.0, -3.0])
    );
    assert_eq!(
        chunks[1]["choices"][0]["logprobs"]["tokens"],
        json!(["<|im_end|>"])
    );
}

#[tokio::test]
async fn an_echo_alone_costs_nothing() {
    let body = json!({"prompt": "In the", "max_tokens": 0, "echo": true});
    let answer = ask(TEXT, body, |_, request| async move {
        assert_eq!(request.max_tokens, Some(0));
        assert!(!request.prompt_logprobs);
        fake::finish(&request, 0).await;
    })
    .await
    .json();
    assert_eq!(answer["choices"][0]["text"], "In the");
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn formats_and_forced_calls_become_constraints() {
    let tools = json!([{"type": "function", "function": {"name": "f"}}]);
    for fields in [
        json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "null"}}}}),
        json!({"tools": tools, "tool_choice": "required"}),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        let answer = ask(CHAT, body, |_, request| async move {
            assert!(request.constraint.is_some());
            fake::answer(&request, &["null"]).await;
        })
        .await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}
