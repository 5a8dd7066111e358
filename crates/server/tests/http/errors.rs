//! What each route answers to a request it cannot serve: status, words, and the field at fault.

use engine::Event;
use serde_json::Value;

use crate::fake::{self, CONTEXT, get, post, send};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

#[tokio::test]
async fn each_bad_request_says_what_to_change() {
    let (_app, router) = fake::talkative(&["x"]);
    let long = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(CONTEXT as usize));
    let long_says =
        format!("the prompt has {CONTEXT} tokens, and this server holds {CONTEXT} per request");
    let user = |content: &str| format!(r#"{{"messages":[{{"role":"user","content":{content}}}]}}"#);
    let with = |field: &str| format!(r#"{{"messages":[{{"role":"user","content":"x"}}],{field}}}"#);
    let cases: Vec<(&str, String, u16, &str, &str)> = vec![
        (
            CHAT,
            "{\"model\":\n oops}".into(),
            400,
            "not valid JSON: expected value at line 2 column 2",
            "",
        ),
        (
            CHAT,
            String::new(),
            400,
            "not valid JSON: EOF while parsing a value at line 1 column 0",
            "",
        ),
        (
            CHAT,
            "{\"messages\":[".into(),
            400,
            "EOF while parsing a list",
            "",
        ),
        (CHAT, with("\"n\":1") + "x", 400, "trailing characters", ""),
        (CHAT, "[]".into(), 400, "invalid length 0", "body"),
        (CHAT, "{}".into(), 400, "missing field `messages`", "body"),
        (
            CHAT,
            r#"{"messages":[]}"#.into(),
            400,
            "at least one is needed",
            "messages",
        ),
        (
            CHAT,
            r#"{"messages":"hi"}"#.into(),
            400,
            "invalid type: string \"hi\", expected a sequence",
            "messages",
        ),
        (
            CHAT,
            user("5"),
            400,
            "expected a string or a list of parts",
            "messages[0].content",
        ),
        (CHAT, user("null"), 400, "missing", "messages[0].content"),
        (
            CHAT,
            user(r#"[{"type":"text"}]"#),
            400,
            "a text part without text",
            "messages[0].content[0]",
        ),
        (
            CHAT,
            user(r#"[{"type":"image_url","image_url":{}}]"#),
            400,
            "'image_url' are not supported",
            "messages[0].content[0]",
        ),
        (
            CHAT,
            r#"{"messages":[{"role":"wizard","content":"x"}]}"#.into(),
            400,
            "'wizard' is none of",
            "messages[0].role",
        ),
        (
            CHAT,
            r#"{"messages":[{"content":"x"}]}"#.into(),
            400,
            "missing field `role`",
            "messages[0]",
        ),
        (
            CHAT,
            with(r#""temperature":3"#),
            400,
            "3 is not within 0 to 2",
            "temperature",
        ),
        (
            CHAT,
            with(r#""top_p":"a""#),
            400,
            "invalid type: string \"a\"",
            "top_p",
        ),
        (
            CHAT,
            with(r#""n":200"#),
            400,
            "200 is not within 1 to 128",
            "n",
        ),
        (
            CHAT,
            with(r#""max_completion_tokens":0"#),
            400,
            "must be at least 1",
            "max_completion_tokens",
        ),
        (
            CHAT,
            with(r#""logprobs":1"#),
            400,
            "invalid type: integer `1`, expected a boolean",
            "logprobs",
        ),
        (
            CHAT,
            with(r#""logprobs":true,"top_logprobs":21"#),
            400,
            "21 is not within 0 to 20",
            "top_logprobs",
        ),
        (
            CHAT,
            with(r#""top_logprobs":2"#),
            400,
            "needs logprobs: true",
            "top_logprobs",
        ),
        (
            CHAT,
            with(
                r#""response_format":{"type":"json_schema","json_schema":{"schema":{"type":"odd"}}}"#,
            ),
            400,
            "cannot be held to this format",
            "response_format",
        ),
        (
            CHAT,
            with(r#""tools":[{"type":"function"}]"#),
            400,
            "not of the form",
            "tools[0]",
        ),
        (
            CHAT,
            with(r#""tool_choice":"required""#),
            400,
            "needs tools",
            "tool_choice",
        ),
        (
            CHAT,
            with(r#""tools":[{"function":{"name":"a b"}}],"tool_choice":"required""#),
            400,
            "named \"a b\"; use letters",
            "tool_choice",
        ),
        (
            CHAT,
            with(r#""stop":{}"#),
            400,
            "expected a string or a list of strings",
            "stop",
        ),
        (
            CHAT,
            with(r#""model":"gpt-4""#),
            404,
            "the model 'gpt-4' is not served here; known: kimi, fake",
            "model",
        ),
        (TEXT, long, 400, &long_says, ""),
        (TEXT, "{}".into(), 400, "missing field `prompt`", "body"),
        (TEXT, r#"{"prompt":""}"#.into(), 400, "is empty", "prompt"),
        (
            TEXT,
            r#"{"prompt":{}}"#.into(),
            400,
            "expected a string, a list of strings",
            "prompt",
        ),
        (
            TEXT,
            r#"{"prompt":["a",""]}"#.into(),
            400,
            "is empty",
            "prompt[1]",
        ),
        (
            TEXT,
            r#"{"prompt":[[1],[2,300]]}"#.into(),
            400,
            "token id 300 is not below 268",
            "prompt[1][1]",
        ),
        (
            TEXT,
            r#"{"prompt":["a","b"],"n":65}"#.into(),
            400,
            "130 answers wanted in all, at most 128",
            "prompt",
        ),
        (
            TEXT,
            r#"{"prompt":"a","max_tokens":0}"#.into(),
            400,
            "must be at least 1",
            "max_tokens",
        ),
        (
            TEXT,
            r#"{"prompt":"a","best_of":2}"#.into(),
            400,
            "2 is not n",
            "best_of",
        ),
        (
            TEXT,
            r#"{"prompt":"a","suffix":"b"}"#.into(),
            400,
            "not supported",
            "suffix",
        ),
        (
            TEXT,
            r#"{"prompt":"a","logprobs":true}"#.into(),
            400,
            "invalid type: boolean `true`, expected u64",
            "logprobs",
        ),
        ("/tokenize", "{}".into(), 400, "missing", "content"),
        (
            "/detokenize",
            r#"{"tokens":[1,300]}"#.into(),
            400,
            "token id 300 is not below 268",
            "tokens[1]",
        ),
        (
            "/apply-template",
            r#"{"messages":[]}"#.into(),
            400,
            "at least one is needed",
            "messages",
        ),
        (
            TEXT,
            r#"{"prompt":[1,"b"]}"#.into(),
            400,
            "do not mix",
            "prompt",
        ),
        (
            TEXT,
            r#"{"prompt":[-1]}"#.into(),
            400,
            "token ids only",
            "prompt[0]",
        ),
        (
            TEXT,
            r#"{"prompt":[268]}"#.into(),
            400,
            "token id 268 is not below 268",
            "prompt[0]",
        ),
    ];
    for (path, body, status, says, param) in cases {
        let answer = send(&router, post(path, body.clone())).await;
        let error = &answer.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(says), "{body}: {message}");
        assert_eq!(answer.status, status, "{body}");
        assert_eq!(error["param"].as_str().unwrap_or(""), param, "{body}");
        assert_eq!(error["type"], "invalid_request_error", "{body}");
    }
}

#[tokio::test]
async fn codes_that_clients_look_at() {
    let (_app, router) = fake::talkative(&[]);
    let code = async |path, body: String| {
        send(&router, post(path, body)).await.json()["error"]["code"].clone()
    };
    assert_eq!(
        code(TEXT, r#"{"prompt":"a","model":"x"}"#.into()).await,
        "model_not_found"
    );
    let long = format!(r#"{{"prompt":"{}"}}"#, "a".repeat(5000));
    assert_eq!(code(TEXT, long).await, "context_length_exceeded");
}

#[tokio::test]
async fn unknown_routes_and_methods() {
    let (_app, router) = fake::talkative(&[]);
    let missing = send(&router, get("/v2/nothing")).await;
    assert_eq!(missing.status, 404);
    assert_eq!(
        missing.json()["error"]["message"],
        "no route GET /v2/nothing"
    );
    let wrong = send(&router, get(CHAT)).await;
    assert_eq!(wrong.status, 405);
    assert_eq!(
        wrong.json()["error"]["message"],
        "GET /v1/chat/completions is not allowed here"
    );
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let (_app, router) = fake::talkative(&[]);
    let large = " ".repeat((4 << 20) + 1);
    let refused = send(&router, post(CHAT, large)).await;
    assert_eq!(refused.status, 413);
    assert!(refused.text.contains("larger than 4194304 bytes"));
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let (app, router, mut requests) = fake::ready();
    let body = r#"{"prompt":"a","stream":true}"#;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let router = router.clone();
        waiting.push(tokio::spawn(async move {
            send(&router, post(TEXT, body)).await
        }));
    }
    while requests.len() < 2 {
        tokio::task::yield_now().await;
    }
    let refused = send(&router, post(TEXT, body)).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    assert_eq!(refused.header("retry-after"), "1");
    let metrics = send(&server::health::router(app), get("/metrics"))
        .await
        .text;
    assert!(metrics.contains("kimi_requests_deferred 2\n"), "{metrics}");
    assert!(
        metrics.contains("kimi_requests_refused_total 1\n"),
        "{metrics}"
    );
    for _ in 0..2 {
        fake::answer(&requests.recv().await.unwrap(), &["a"]).await;
    }
    for answer in waiting {
        assert_eq!(answer.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn an_engine_error_reaches_the_client() {
    let (_app, router, mut requests) = fake::ready();
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            request
                .events
                .send(Event::Error("the logits are not finite".into()))
                .await
                .unwrap();
        }
    });
    let whole = send(&router, post(TEXT, r#"{"prompt":"a"}"#)).await;
    assert_eq!(whole.status, 500);
    assert_eq!(
        whole.json()["error"]["message"],
        "the logits are not finite"
    );
    // A stream has its status already, so the error is its last event.
    let stream = send(&router, post(TEXT, r#"{"prompt":"a","stream":true}"#)).await;
    assert_eq!(stream.status, 200);
    let last = stream.text.trim_end().strip_prefix("data: ").unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["error"]["type"], "server_error");
}

#[tokio::test]
async fn a_dead_engine_fails_liveness() {
    let (app, router, requests) = fake::ready();
    let probes = server::health::router(app);
    assert_eq!(send(&probes, get("/livez")).await.status, 200);
    drop(requests);
    assert_eq!(
        send(&router, post(TEXT, r#"{"prompt":"a"}"#)).await.status,
        503
    );
    assert_eq!(send(&probes, get("/livez")).await.status, 503);
    assert_eq!(send(&probes, get("/readyz")).await.status, 503);
    assert_eq!(send(&router, get("/health")).await.status, 503);
}
