//! Drives the `kimi` binary with the committed model: serving, draining, every way a load can fail,
//! and a KimiModel run against the hub stand-in. Knows the command line and HTTP only.
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Output,
    time::{Duration, Instant},
};

use common::{Server, ask, free_port, kimi, model, testdata};
use serde_json::Value;
use sizing::InspectReport;

fn question(text: &str) -> String {
    format!(r#"{{"temperature":0,"messages":[{{"role":"user","content":"{text}"}}]}}"#)
}

#[test]
fn serves_then_drains() {
    let (port, health) = (free_port(), free_port());
    let mut command = kimi();
    command.args([
        "serve",
        "--host",
        "127.0.0.1",
        "--alias",
        "kimi-tiny",
        "--ctx-size",
        "1024",
    ]);
    command.args([
        "--port",
        &port.to_string(),
        "--health-port",
        &health.to_string(),
    ]);
    command.arg("--model").arg(model("Q8_0"));
    command
        .env("QUANT_TYPE", "Q8_0")
        .env("KIMI_ARTIFACT", "0123456789");
    let mut server = Server::start(&mut command, port);
    assert!(
        ask(health, "GET", "/readyz", "")
            .unwrap()
            .contains("200 OK")
    );
    assert!(ask(health, "GET", "/livez", "").unwrap().contains("200 OK"));
    let body = question("Who created the heaven and the earth?");
    let answer = server.ask("POST", "/v1/chat/completions", &body).unwrap();
    assert!(
        answer.contains("God created the heaven and the earth."),
        "{answer}"
    );
    assert!(
        answer.contains(r#""system_fingerprint":"Q8_0-0123456789""#),
        "{answer}"
    );

    // A stream under way goes on to its end after SIGTERM.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let body = r#"{"prompt":"In the beginning","max_tokens":600,"temperature":0,"stream":true}"#;
    let head = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).unwrap();
    let mut first = [0; 512];
    let n = stream.read(&mut first).unwrap();
    assert!(n > 0);
    server.signal("TERM");
    let mut rest = String::from_utf8_lossy(&first[..n]).into_owned();
    let mut chunk = [0; 4096];
    while !rest.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n") {
        let n = stream.read(&mut chunk).unwrap();
        assert!(n > 0, "the stream was cut: {rest}");
        rest.push_str(&String::from_utf8_lossy(&chunk[..n]));
    }
    drop(stream);
    assert_eq!(server.code(), Some(0));
}

/// A file put in the place of one that is mapped changes no answer before the next start: who serves it must say so.
#[test]
fn a_file_swapped_under_the_server_is_named() {
    let directory = tempfile::tempdir().unwrap();
    for shard in fs::read_dir(model("Q8_0").parent().unwrap()).unwrap() {
        let shard = shard.unwrap();
        fs::copy(shard.path(), directory.path().join(shard.file_name())).unwrap();
    }
    let (port, health) = (free_port(), free_port());
    let mut command = kimi();
    command.args(["serve", "--host", "127.0.0.1", "--ctx-size", "256"]);
    command.args([
        "--port",
        &port.to_string(),
        "--health-port",
        &health.to_string(),
    ]);
    command.arg("--model").arg(directory.path());
    let _server = Server::start(&mut command, port);
    let changed = || {
        let answer = ask(health, "GET", "/usage", "").unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let usage: Value = serde_json::from_str(body).unwrap();
        usage["weightsChanged"].clone()
    };
    assert_eq!(changed(), Value::Null);
    let name = "Kimi-Tiny-Q8_0-00002-of-00003.gguf";
    let (shard, twin) = (directory.path().join(name), directory.path().join("twin"));
    fs::copy(&shard, &twin).unwrap();
    fs::rename(&twin, &shard).unwrap();
    assert_eq!(changed(), name);
}

/// The body of an answer: JSON, or the events of a stream joined into the same form.
fn answer(server: &Server, body: &str) -> Value {
    let text = server.ask("POST", "/v1/chat/completions", body).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    if head.contains("application/json") {
        return serde_json::from_str(body).unwrap();
    }
    let (mut content, mut last) = (String::new(), Value::Null);
    for event in body.lines().filter_map(|line| line.strip_prefix("data: {")) {
        last = serde_json::from_str(&format!("{{{event}")).unwrap();
        let delta = &last["choices"][0]["delta"]["content"];
        content += delta.as_str().unwrap_or_default();
    }
    last["choices"][0]["message"]["content"] = Value::String(content);
    last
}

/// Whoever sends the same words again gets the same answer, and the one token of the prompt that is computed anew is not
/// taken for the speed of reading.
#[test]
fn a_request_repeated_is_answered_from_the_cache() {
    let port = free_port();
    let mut command = kimi();
    command.args(["serve", "--host", "127.0.0.1", "--health-port", "0"]);
    command.args(["--ctx-size", "256", "--parallel", "1"]);
    command
        .args(["--port", &port.to_string()])
        .arg("--model")
        .arg(model("Q8_0"));
    let mut server = Server::start(&mut command, port);
    let body = question("Who built the ark?");
    let streamed = body.replacen('{', r#"{"stream":true,"#, 1);
    let one_token = body.replacen('{', r#"{"max_tokens":1,"#, 1);

    // The server's self-test has left other words in the cache.
    let first = answer(&server, &body);
    let prompt = first["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(first["timings"]["prompt_per_second"].as_f64().unwrap() > 0.0);
    for body in [&body, &streamed, &body, &streamed, &one_token, &body] {
        let again = answer(&server, body);
        let choice = &again["choices"][0];
        let content = choice["message"]["content"].as_str().unwrap();
        let timings = &again["timings"];
        assert_eq!(timings["cache_n"], prompt - 1, "{again}");
        assert_eq!(timings["prompt_n"], 1, "{again}");
        for speed in ["prompt_per_second", "prompt_per_token_ms"] {
            assert_eq!(timings[speed], 0.0, "{again}");
        }
        if body == &one_token {
            assert!(!content.is_empty(), "{again}");
            assert_eq!(choice["finish_reason"], "length", "{again}");
            assert_eq!(timings["predicted_per_second"], 0.0, "{again}");
        } else {
            assert_eq!(content, "Noah built the ark.", "{again}");
            assert_eq!(choice["finish_reason"], "stop", "{again}");
            assert!(timings["predicted_per_second"].as_f64().unwrap() > 0.0);
        }
    }
    server.signal("TERM");
    assert_eq!(server.code(), Some(0));
}

#[test]
fn a_signal_while_nothing_is_open_ends_it_at_once() {
    let port = free_port();
    let mut command = kimi();
    command.args([
        "serve",
        "--host",
        "127.0.0.1",
        "--ctx-size",
        "256",
        "--health-port",
        "0",
    ]);
    command
        .args(["--port", &port.to_string()])
        .arg("--model")
        .arg(model("Q4_K_M"));
    let mut server = Server::start(&mut command, port);
    let models = server.ask("GET", "/v1/models", "").unwrap();
    assert!(
        models.contains(r#""id":"Kimi-Tiny""#) && models.contains("Q4_K_M"),
        "{models}"
    );
    let started = Instant::now();
    server.signal("INT");
    assert_eq!(server.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[test]
fn each_failure_has_a_reason_and_a_code() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let whole = fs::read(model("Q4_K_M")).unwrap();
    let first = model("Q4_K_M").display().to_string();
    let text = file(
        "text.gguf",
        b"this is no model, just some text that is long enough",
    );
    let header_only = file("cut.gguf", &whole[..2000]);
    let lonely = file("Kimi-Tiny-Q4_K_M-00001-of-00003.gguf", &whole);
    let empty_keys = file("keys", b"\n");
    let cases: [(&[&str], i32, &str, &str); 9] = [
        (
            &["--model", "/nowhere/x.gguf"],
            1,
            "ModelNotFound",
            "/nowhere/x.gguf",
        ),
        (&["--model", &text], 2, "NotGguf", "text.gguf"),
        (&["--model", &header_only], 1, "LoadFailed", "cut.gguf"),
        (&["--model", &lonely], 2, "MissingShard", "00002-of-00003"),
        (
            &["--model", &first, "--ctx-size", "2000000"],
            2,
            "ContextTooLong",
            "131072",
        ),
        (
            &["--model", &first, "--parallel", "0"],
            1,
            "LoadFailed",
            "slots",
        ),
        (
            &["--model", &first, "--api-key-file", "/nowhere/key"],
            1,
            "SecretMissing",
            "create the Secret",
        ),
        (
            &["--model", &first, "--api-key-file", &empty_keys],
            1,
            "SecretMissing",
            "holds no key",
        ),
        (
            &["--manifest", "/nowhere/kimi-manifest.json"],
            1,
            "ModelNotFound",
            "not fetched yet",
        ),
    ];
    for (args, code, reason, says) in cases {
        let output = dir.path().join("termination-log");
        _ = fs::remove_file(&output);
        let mut command = kimi();
        command.args([
            "serve",
            "--host",
            "127.0.0.1",
            "--port",
            "0",
            "--health-port",
            "0",
        ]);
        let ended = command
            .args(args)
            .arg("--output")
            .arg(&output)
            .output()
            .unwrap();
        let report = InspectReport::parse(&fs::read_to_string(&output).unwrap()).unwrap();
        let InspectReport::Error(failure) = report else {
            panic!("{args:?} reported facts")
        };
        assert_eq!(
            (failure.reason.as_str(), ended.status.code()),
            (reason, Some(code)),
            "{args:?}"
        );
        assert!(
            failure.message.contains(says),
            "{args:?}: {}",
            failure.message
        );
        let stderr = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(stderr.contains(&format!("error: {reason}: ")), "{stderr}");
    }
}

#[test]
fn a_taken_port_is_reported_before_the_model_is_read() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = kimi();
    command.args([
        "serve",
        "--host",
        "127.0.0.1",
        "--port",
        &port,
        "--health-port",
        "0",
    ]);
    let ended = command
        .arg("--model")
        .arg(model("Q4_K_M"))
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&ended.stderr).contains("another server running?"));
}

fn succeeded(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn inspect_tells_what_a_model_is_made_of() {
    let json = kimi()
        .args(["inspect", "-o", "json"])
        .arg(model("Q4_K_M"))
        .output()
        .unwrap();
    let summary: Value = serde_json::from_str(&succeeded(&json)).unwrap();
    assert_eq!(summary["architecture"], "deepseek2");
    assert_eq!(summary["fileType"], "Q4_K_M");
    assert_eq!(summary["parameters"], 14_270_768);
    assert_eq!(summary["shards"].as_array().unwrap().len(), 3);
    let sum: u64 = summary["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["parameters"].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 14_270_768);
    let table = kimi().arg("inspect").arg(model("Q8_0")).output().unwrap();
    let table = succeeded(&table);
    assert!(
        table.contains("bits per weight  8.5") && table.contains("00003-of-00003"),
        "{table}"
    );
    let missing = kimi().args(["inspect", "/nowhere"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
}

#[test]
fn perplexity_is_one_line() {
    let mut command = kimi();
    command
        .args(["perplexity", "-c", "192", "--chunks", "2", "-m"])
        .arg(model("Q8_0"));
    let output = command
        .arg("-f")
        .arg(testdata().join("heldout.txt"))
        .output()
        .unwrap();
    let line = succeeded(&output);
    let (value, error) = line
        .trim_end()
        .strip_prefix("perplexity: ")
        .unwrap()
        .split_once(" +/- ")
        .unwrap();
    assert!(
        (20.0..60.0).contains(&value.parse::<f64>().unwrap()),
        "{line}"
    );
    assert!(error.parse::<f64>().unwrap() > 0.0);
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn run_plans_fetches_and_serves() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let hub = runtime
        .block_on(testhub::Hub::start(testhub::Config::local(
            testdata().join("hub"),
        )))
        .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let mut command = kimi();
    command
        .arg("run")
        .arg("-f")
        .arg(testdata().join("../examples/kimi-tiny.yaml"));
    command
        .args([
            "--endpoint",
            &hub.url(),
            "--port",
            &port.to_string(),
            "--dir",
        ])
        .arg(dir.path());
    for _ in 0..2 {
        let mut server = Server::start(&mut command, port);
        let answer = server
            .ask(
                "POST",
                "/v1/chat/completions",
                &question("Who built the ark?"),
            )
            .unwrap();
        assert!(answer.contains("Noah built the ark."), "{answer}");
        server.signal("INT");
        assert_eq!(server.code(), Some(0));
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "one artifact, fetched once"
    );

    // What was fetched and verified needs no hub.
    let offline = free_port();
    let mut command = kimi();
    command
        .arg("run")
        .arg("-f")
        .arg(testdata().join("../examples/kimi-tiny.yaml"))
        .args(["--endpoint", "http://127.0.0.1:9", "--port"])
        .arg(offline.to_string())
        .arg("--dir")
        .arg(dir.path());
    let mut server = Server::start(&mut command, offline);
    let answer = server
        .ask(
            "POST",
            "/v1/chat/completions",
            &question("Who built the ark?"),
        )
        .unwrap();
    assert!(answer.contains("Noah built the ark."), "{answer}");
    server.signal("INT");
    assert_eq!(server.code(), Some(0));

    // What does not fit is refused with numbers.
    let spec = dir.path().join("large.yaml");
    let text = fs::read_to_string(testdata().join("../examples/kimi-tiny.yaml")).unwrap();
    fs::write(&spec, text + "  memory: 100Mi\n").unwrap();
    let mut command = kimi();
    command
        .arg("run")
        .arg("-f")
        .arg(&spec)
        .args(["--endpoint", &hub.url(), "--dir"])
        .arg(dir.path());
    let refused = command.output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(stderr.contains("DoesNotFit"), "{stderr}");
}
