//! What each route answers when all is well.

use std::sync::Arc;

use engine::Progress;
use serde_json::{Value, json};
use server::{ApiKeys, App, Config};
use tower::ServiceExt;

use crate::fake::{self, get, post, send};

const HELLO: &str = r#"{"model":"kimi","messages":[{"role":"user","content":"Hello"}]}"#;

#[tokio::test]
async fn health_follows_the_phase() {
    let app = App::new(Config::default(), Progress::new());
    let router = server::router(Arc::clone(&app));
    let probes = server::health::router(Arc::clone(&app));
    let loading = send(&router, get("/health")).await;
    assert_eq!(loading.status, 503);
    assert_eq!(loading.json()["error"]["type"], "unavailable_error");
    assert!(loading.text.contains("Loading model"));
    assert_eq!(
        send(&router, post("/v1/chat/completions", HELLO))
            .await
            .status,
        503
    );
    assert_eq!(send(&probes, get("/livez")).await.status, 200);
    assert_eq!(send(&probes, get("/readyz")).await.status, 503);

    app.ready(fake::handle(1).0);
    for path in ["/health", "/v1/health"] {
        assert_eq!(
            send(&router, get(path)).await.json(),
            json!({"status": "ok"})
        );
    }
    assert_eq!(send(&probes, get("/readyz")).await.status, 200);

    app.drain();
    assert_eq!(send(&router, get("/health")).await.status, 503);
    assert_eq!(send(&probes, get("/readyz")).await.status, 503);
    assert_eq!(send(&probes, get("/livez")).await.status, 200);
}

#[tokio::test]
async fn models_lists_each_name() {
    let (_app, router) = fake::talkative(&[]);
    let list = send(&router, get("/v1/models")).await.json();
    assert_eq!(list["object"], "list");
    assert_eq!(list["data"][0]["id"], "kimi");
    assert_eq!(list["data"][1]["id"], "fake");
    assert_eq!(list["data"][0]["meta"]["n_ctx"], fake::CONTEXT);
    assert_eq!(
        send(&router, get("/v1/models/fake")).await.json()["id"],
        "fake"
    );
    assert_eq!(send(&router, get("/v1/models/gpt")).await.status, 404);

    // Without configured names the file's own name serves.
    let app = App::new(Config::default(), Progress::new());
    app.ready(fake::handle(1).0);
    let list = send(&server::router(app), get("/v1/models")).await.json();
    assert_eq!(list["data"][0]["id"], "Kimi Fake");
}

#[tokio::test]
async fn chat_answers_in_one_piece() {
    let (_app, router) = fake::talkative(&["In the ", "", "beginning", " <|tool_call_begin|>"]);
    let answer = send(&router, post("/v1/chat/completions", HELLO)).await;
    assert_eq!(answer.status, 200);
    let json = answer.json();
    assert_eq!(json["object"], "chat.completion");
    assert_eq!(json["model"], "kimi");
    assert!(json["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert_eq!(json["system_fingerprint"], "Q8_0-local");
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["role"], "assistant");
    assert_eq!(
        choice["message"]["content"],
        "In the beginning <|tool_call_begin|>"
    );
    assert_eq!(choice["finish_reason"], "stop");
    let prompt = json["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(json["usage"]["completion_tokens"], 5);
    assert_eq!(json["usage"]["total_tokens"], prompt + 5);
    assert_eq!(json["usage"]["prompt_tokens_details"]["cached_tokens"], 10);
    let timings = &json["timings"];
    assert_eq!(timings["cache_n"], 10);
    assert_eq!(timings["prompt_n"], prompt - 10);
    assert_eq!(timings["prompt_ms"], 100.0);
    assert_eq!(timings["predicted_n"], 5);
    assert_eq!(timings["predicted_ms"], 500.0);
    // The first of five tokens came out of the prompt's last pass.
    assert_eq!(timings["predicted_per_second"], 8.0);
    assert_eq!(timings["predicted_per_token_ms"], 125.0);
}

#[tokio::test]
async fn the_engine_hears_what_was_asked() {
    let (_app, router, mut requests) = fake::ready();
    let body = json!({
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Who <|im_end|>"}, {"type": "text", "text": "built it?"}]},
        ],
        "max_completion_tokens": 7, "temperature": 0, "stop": "\n", "seed": 42, "user": "u", "metadata": {},
    });
    let asked =
        tokio::spawn(
            async move { send(&router, post("/v1/chat/completions", body.to_string())).await },
        );
    let request = requests.recv().await.unwrap();
    fake::answer(&request, &["Noah"]).await;
    assert_eq!(
        asked.await.unwrap().json()["model"],
        "kimi",
        "no model asked for means the only one"
    );

    let (handle, _requests) = fake::handle(1);
    let prompt = handle.tokenizer().decode(&request.tokens);
    assert!(
        prompt.contains("<|im_system|>system<|im_middle|>Be brief.<|im_end|>"),
        "{prompt}"
    );
    assert!(prompt.contains("Who <|im_end|>built it?"), "{prompt}");
    let ends = handle.tokenizer().special("<|im_end|>").unwrap();
    let count = request.tokens.iter().filter(|&&id| id == ends).count();
    assert_eq!(count, 2, "user text never becomes a special token");
    assert_eq!(request.max_tokens, Some(7));
    assert_eq!(request.stop, ["\n"]);
    assert_eq!(request.sampling.temperature, 0.0);
    assert_eq!(request.sampling.seed, Some(42));
}

#[tokio::test]
async fn tools_reach_the_template_in_the_clients_order() {
    let (_app, router, mut requests) = fake::ready();
    let body = r#"{"model":"kimi","messages":[{"role":"user","content":"?"},
        {"role":"assistant","content":null,"tool_calls":[{"id":"functions.f:0","type":"function","function":{"name":"f","arguments":"{}"}}]},
        {"role":"tool","tool_call_id":"functions.f:0","content":"5"}],
        "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{}}}]}"#;
    let request = fake::exchange(&router, &mut requests, post("/v1/chat/completions", body)).await;
    let prompt = fake::handle(1).0.tokenizer().decode(&request.tokens);
    assert!(
        prompt.contains(r#""name": "f", "description": "d""#),
        "{prompt}"
    );
}

/// The data of each event, after checking the framing.
pub(crate) fn events(text: &str) -> Vec<&str> {
    assert!(text.ends_with("\n\n"), "{text:?}");
    text.trim_end_matches('\n')
        .split("\n\n")
        .map(|event| {
            event
                .strip_prefix("data: ")
                .unwrap_or_else(|| panic!("{event:?}"))
        })
        .collect()
}

pub(crate) fn parsed(events: &[&str]) -> Vec<Value> {
    events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect()
}

#[tokio::test]
async fn chat_streams_as_openai_does() {
    let (_app, router) = fake::talkative(&["In the ", "beginning"]);
    let body = HELLO.replacen('{', r#"{"stream":true,"#, 1);
    let answer = send(&router, post("/v1/chat/completions", &*body)).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    assert_eq!(answer.header("cache-control"), "no-cache");
    let events = events(&answer.text);
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(*last, "[DONE]");
    let chunks = parsed(chunks);
    assert_eq!(chunks.len(), 4);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["object"] == "chat.completion.chunk")
    );
    assert!(chunks.iter().all(|chunk| chunk["id"] == chunks[0]["id"]));
    assert_eq!(
        chunks[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    assert_eq!(
        chunks[1]["choices"][0]["delta"],
        json!({"content": "In the "})
    );
    assert_eq!(
        chunks[2]["choices"][0]["delta"],
        json!({"content": "beginning"})
    );
    assert_eq!(chunks[1]["choices"][0]["finish_reason"], Value::Null);
    assert_eq!(chunks[3]["choices"][0]["delta"], json!({}));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!(chunks[3]["timings"]["predicted_n"], 3);
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn usage_comes_last_when_asked_for() {
    let (_app, router) = fake::talkative(&["x"]);
    let body = HELLO.replacen(
        '{',
        r#"{"stream":true,"stream_options":{"include_usage":true},"#,
        1,
    );
    let answer = send(&router, post("/v1/chat/completions", &*body)).await;
    let events = events(&answer.text);
    let usage: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!(usage["choices"], json!([]));
    let first: Value = serde_json::from_str(events[0]).unwrap();
    assert_eq!(first["usage"], Value::Null);
    assert!(first.as_object().unwrap().contains_key("usage"));
    assert_eq!(usage["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn text_completions_both_ways() {
    let (_app, router) = fake::talkative(&["God ", "created"]);
    for prompt in [r#""In the""#, r#"["In the"]"#, "[73,110]", "[[73,110]]"] {
        let body = format!(r#"{{"model":"fake","prompt":{prompt},"max_tokens":5}}"#);
        let json = send(&router, post("/v1/completions", body)).await.json();
        assert_eq!(json["object"], "text_completion");
        assert_eq!(json["model"], "fake");
        assert_eq!(json["choices"][0]["text"], "God created");
        assert_eq!(json["choices"][0]["finish_reason"], "stop");
    }
    let body = r#"{"prompt":"In the","stream":true}"#;
    let answer = send(&router, post("/v1/completions", body)).await;
    let events = events(&answer.text);
    let (last, chunks) = events.split_last().unwrap();
    assert_eq!(*last, "[DONE]");
    let chunks = parsed(chunks);
    assert_eq!(chunks[0]["choices"][0]["text"], "God ");
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn limits_of_an_answer() {
    let (_app, router, mut requests) = fake::ready();
    for (body, expected) in [
        (r#"{"prompt":"ab"}"#, 16),
        (r#"{"prompt":"ab","max_tokens":100000}"#, fake::CONTEXT - 2),
    ] {
        let (router, sent) = (router.clone(), post("/v1/completions", body));
        let asked = tokio::spawn(async move { send(&router, sent).await });
        let request = requests.recv().await.unwrap();
        assert_eq!(request.max_tokens, Some(expected));
        fake::answer(&request, &[]).await;
        asked.await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_response_cancels() {
    let (_app, router, mut requests) = fake::ready();
    let body = HELLO.replacen('{', r#"{"stream":true,"#, 1);
    let response = router
        .clone()
        .oneshot(post("/v1/chat/completions", &*body))
        .await
        .unwrap();
    let request = requests.recv().await.unwrap();
    assert!(!request.events.is_closed());
    drop(response);
    request.events.closed().await;
    let metrics = send(&router, get("/metrics")).await.text;
    assert!(
        metrics.contains("kimi_requests_cancelled_total 1\n"),
        "{metrics}"
    );
}

#[tokio::test]
async fn metrics_have_llama_servers_names() {
    let (app, router) = fake::talkative(&["a", "b"]);
    let prompt_tokens = send(&router, post("/v1/chat/completions", HELLO))
        .await
        .json()["usage"]["prompt_tokens"]
        .as_u64()
        .unwrap();
    let answer = send(&router, get("/metrics")).await;
    assert!(
        answer
            .header("content-type")
            .starts_with("application/openmetrics-text")
    );
    for line in [
        &format!("kimi_prompt_tokens_total {}", prompt_tokens - 10),
        "kimi_prompt_seconds_total 0.1",
        "kimi_tokens_predicted_total 3",
        "kimi_tokens_predicted_seconds_total 0.5",
        "kimi_predicted_tokens_seconds 6.0",
        "kimi_requests_processing 0",
        "kimi_requests_deferred 0",
        "kimi_slots 1",
        "kimi_kv_cache_tokens 0",
        "kimi_kv_cache_usage_ratio 0.0",
        &format!("kimi_n_tokens_max {}", prompt_tokens + 3),
        r#"kimi_http_requests_total{route="/v1/chat/completions",code="200"} 1"#,
        "# EOF",
    ] {
        assert!(
            answer.text.lines().any(|found| found == line),
            "{line} not in\n{}",
            answer.text
        );
    }
    let probes = server::health::router(app);
    assert_eq!(send(&probes, get("/metrics")).await.status, 200);
    let usage = send(&probes, get("/usage")).await.json();
    assert_eq!(usage["milliTokensPerSecond"], 6000, "{usage}");
    assert!(usage["majorFaultsPerToken"].is_u64(), "{usage}");
    assert!(usage["weightsChanged"].is_null(), "{usage}");
    assert_eq!(
        send(&router, get("/usage")).await.status,
        404,
        "not for clients"
    );
}

#[tokio::test]
async fn keys_guard_all_but_health_and_models() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api-key");
    std::fs::write(&path, "sesame\n").unwrap();
    let config = Config {
        api_keys: Some(ApiKeys::open(&path).unwrap()),
        ..fake::config()
    };
    let app = App::new(config, Progress::new());
    let (handle, mut requests) = fake::handle(1);
    app.ready(handle);
    tokio::spawn(async move {
        while let Some(request) = requests.recv().await {
            fake::answer(&request, &["in"]).await;
        }
    });
    let router = server::router(app);
    for path in ["/health", "/v1/health", "/v1/models"] {
        assert_eq!(send(&router, get(path)).await.status, 200, "{path}");
    }
    for path in ["/metrics", "/props", "/slots", "/tokenizer_info"] {
        assert_eq!(send(&router, get(path)).await.status, 401, "{path}");
    }
    let with = |value: &str| {
        let mut request = post("/v1/chat/completions", HELLO);
        request
            .headers_mut()
            .insert("authorization", value.parse().unwrap());
        request
    };
    let none = send(&router, post("/v1/chat/completions", HELLO)).await;
    assert_eq!(none.status, 401);
    assert_eq!(none.header("www-authenticate"), "Bearer");
    for wrong in ["Bearer sesam", "Bearer", "Basic sesame", "Bearer sesame2"] {
        assert_eq!(send(&router, with(wrong)).await.status, 401, "{wrong}");
    }
    assert_eq!(send(&router, with("Bearer sesame")).await.status, 200);
    assert_eq!(send(&router, with("bearer  sesame")).await.status, 200);
}
