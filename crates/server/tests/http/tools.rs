//! Thoughts and calls of tools on their way to a client.

use engine::{Event, Request};
use serde_json::{Value, json};

use crate::fake::{finish, post, ready, send};

const ASK: &str = r#"{"messages":[{"role":"user","content":"Weather?"}],"tools":[{"type":"function","function":{"name":"f"}}]}"#;

/// Sends a turn, its marks by name in the order the fake's vocabulary has them.
async fn speak(request: &Request, turn: &[&str]) {
    const MARKS: [&str; 7] = [
        "<|tool_calls_section_begin|>",
        "<|tool_call_begin|>",
        "<|tool_call_argument_begin|>",
        "<|tool_call_end|>",
        "<|tool_calls_section_end|>",
        "<think>",
        "</think>",
    ];
    for text in turn {
        let mark = MARKS.iter().position(|mark| mark == text);
        let event = Event::Token {
            id: mark.map_or(u32::from(b'x'), |mark| 261 + mark as u32),
            text: (*text).to_owned(),
            logprobs: None,
        };
        request.events.send(event).await.unwrap();
    }
    finish(request, turn.len()).await;
}

const TURN: [&str; 15] = [
    "<think>",
    "hm",
    "</think>",
    "Let ",
    "me.",
    "<|tool_calls_section_begin|>",
    "<|tool_call_begin|>",
    "functions.f",
    ":0",
    "<|tool_call_argument_begin|>",
    "{\"a\"",
    ":1}",
    "<|tool_call_end|>",
    "<|tool_calls_section_end|>",
    "",
];

#[tokio::test]
async fn a_whole_answer_has_thoughts_text_and_calls() {
    let (_app, router, mut requests) = ready();
    tokio::spawn(async move {
        speak(&requests.recv().await.unwrap(), &TURN).await;
    });
    let answer = send(&router, post("/v1/chat/completions", ASK))
        .await
        .json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(
        choice["message"],
        json!({
            "role": "assistant",
            "content": "Let me.",
            "reasoning_content": "hm",
            "tool_calls": [{
                "id": "functions.f:0",
                "type": "function",
                "function": {"name": "f", "arguments": "{\"a\":1}"},
            }],
        })
    );
}

#[tokio::test]
async fn a_message_of_calls_alone_has_no_content() {
    let (_app, router, mut requests) = ready();
    tokio::spawn(async move {
        speak(&requests.recv().await.unwrap(), &TURN[5..]).await;
    });
    let answer = send(&router, post("/v1/chat/completions", ASK))
        .await
        .json();
    let message = &answer["choices"][0]["message"];
    assert_eq!(message["content"], Value::Null);
    assert_eq!(message["tool_calls"][0]["function"]["name"], "f");
    assert_eq!(message.get("reasoning_content"), None);
}

#[tokio::test]
async fn a_stream_names_a_call_before_its_arguments() {
    let (_app, router, mut requests) = ready();
    tokio::spawn(async move {
        speak(&requests.recv().await.unwrap(), &TURN).await;
    });
    let ask = ASK.replacen('{', r#"{"stream":true,"#, 1);
    let answer = send(&router, post("/v1/chat/completions", ask)).await;
    let chunks: Vec<Value> = answer
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .filter(|data| *data != "[DONE]")
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let deltas: Vec<&Value> = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"])
        .collect();
    let expected = [
        json!({"role": "assistant", "content": ""}),
        json!({"reasoning_content": "hm"}),
        json!({"content": "Let "}),
        json!({"content": "me."}),
        json!({"tool_calls": [{"index": 0, "id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": ""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": "{\"a\""}}]}),
        json!({"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]}),
        json!({}),
    ];
    assert_eq!(deltas, expected.iter().collect::<Vec<_>>());
    let last = &chunks[chunks.len() - 1]["choices"][0];
    assert_eq!(last["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn ids_go_on_from_the_conversation() {
    let (_app, router, mut requests) = ready();
    tokio::spawn(async move {
        let request = requests.recv().await.unwrap();
        speak(&request, &TURN[5..]).await;
    });
    let ask = r###"{"messages":[
        {"role":"user","content":"Weather?"},
        {"role":"assistant","tool_calls":[{"id":"call_a","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"call_a","content":"rain"}
    ]}"###;
    let answer = send(&router, post("/v1/chat/completions", ask))
        .await
        .json();
    let call = &answer["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["id"], "functions.f:1");
}

#[tokio::test]
async fn thoughts_can_be_turned_off_in_three_ways() {
    for field in [
        r#""thinking":{"type":"disabled"}"#,
        r#""chat_template_kwargs":{"thinking":false}"#,
        r#""chat_template_kwargs":{"enable_thinking":false}"#,
    ] {
        let (_app, router, mut requests) = ready();
        tokio::spawn(async move {
            speak(&requests.recv().await.unwrap(), &["ok"]).await;
        });
        let ask = ASK.replacen('{', &format!("{{{field},"), 1);
        let answer = send(&router, post("/v1/chat/completions", ask))
            .await
            .json();
        assert_eq!(answer["choices"][0]["message"]["content"], "ok", "{field}");
    }
    let (_app, router, _requests) = ready();
    let ask = ASK.replacen('{', r#"{"thinking":{"type":"maybe"},"#, 1);
    let answer = send(&router, post("/v1/chat/completions", ask))
        .await
        .json();
    assert_eq!(answer["error"]["param"], "thinking.type");
}
