//! Drives `kimi chat` through pipes: with the committed model, and with a server that says what the test
//! wants. Knows the command line and HTTP only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::Value;

fn model() -> PathBuf {
    let quant = "../../testdata/hub/kimi-operator/Kimi-Tiny-GGUF/Q4_K_M";
    Path::new(env!("CARGO_MANIFEST_DIR")).join(quant)
}

fn chat(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kimi"))
        .arg("chat")
        .args(args)
        .env_remove("KIMI_API_KEY")
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that fails early reads none of it.
    _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn local(args: &[&str], input: &str) -> Output {
    let model = model();
    let base = [
        "--model",
        model.to_str().unwrap(),
        "--temperature",
        "0",
        "-t",
        "2",
    ];
    chat(&[&base, args].concat(), input)
}

fn out(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

fn err(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).unwrap()
}

#[test]
fn one_question_is_answered() {
    let output = local(&["Who built the ark?"], "");
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(out(&output), "Noah built the ark.\n");
    assert!(err(&output).contains(" tokens, "), "{}", err(&output));
    let output = local(&["--quiet", "Who built the ark?"], "");
    assert_eq!((out(&output), err(&output)), ("Noah built the ark.\n", ""));
}

#[test]
fn lines_from_a_pipe_are_a_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let saved = dir.path().join("chat.json");
    let input = format!(
        "/help\n\nWho built the \\\nark?\n/regen\n/save {0}\n/reset\n/system Be brief.\n/save {0}2\n/load {0}\n/system\n",
        saved.display()
    );
    let output = local(&[], &input);
    assert!(output.status.success(), "{}", err(&output));
    let answers: Vec<&str> = out(&output).lines().collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    assert_eq!(answers[0], answers[1]);
    assert!(err(&output).contains("/regen"), "{}", err(&output));
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let messages = read(&saved);
    assert_eq!(messages[0]["content"], "Who built the \nark?");
    assert_eq!(messages[1]["content"], answers[0]);
    assert_eq!(messages.as_array().unwrap().len(), 2);
    let reset = read(&dir.path().join("chat.json2"));
    assert_eq!(reset[0]["content"], "Be brief.");
    assert_eq!(reset.as_array().unwrap().len(), 1);

    // The conversation goes on where it was.
    let output = local(&["--load", saved.to_str().unwrap()], "/regen\n");
    assert_eq!(out(&output).trim_end(), answers[0]);
}

#[test]
fn what_cannot_be_done_is_said() {
    for (args, input, words) in [
        (&[][..], "/nonsense\n", "no command /nonsense"),
        (&[], "/regen\n", "no question yet"),
        (&["--load", "/no/such/file"], "", "/no/such/file"),
        (&["--chat-template", "gpt"], "", "kimi-k2-thinking"),
        (&["--url", "http://localhost:1"], "", "cannot be used with"),
        (&["-c", "4", "Who built the ark?"], "", "context"),
    ] {
        let output = local(args, input);
        assert!(!output.status.success(), "{args:?} {input:?}");
        assert!(
            err(&output).contains(words),
            "{args:?} {input:?}: {}",
            err(&output)
        );
    }
    let output = chat(&["Hi"], "");
    assert!(err(&output).contains("--url"), "{}", err(&output));
}

/// Answers each request with the next of `answers`, and passes on what was asked.
fn server(answers: Vec<String>) -> (String, mpsc::Receiver<(String, String)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, asked) = mpsc::channel();
    thread::spawn(move || {
        for answer in answers {
            let (stream, _) = listener.accept().unwrap();
            let request = request(&stream);
            (&stream).write_all(answer.as_bytes()).unwrap();
            sender.send(request).unwrap();
        }
    });
    (url, asked)
}

/// The head and the body of a request.
fn request(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0);
    }
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn http(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn events(events: &[&str]) -> String {
    let events: Vec<String> = events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    http("200 OK", &events.concat())
}

#[test]
fn a_server_answers_with_thoughts_text_and_calls() {
    let first = events(&[
        r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#,
        r#"{"choices":[{"delta":{"reasoning_content":"hm \u001b[2J"}}]}"#,
        r#"{"choices":[{"delta":{"content":"Hel"}}]}"#,
        r#"{"choices":[{"delta":{"content":"lo\u0007"}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"functions.f:0","function":{"name":"f","arguments":""}}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}}]}"#,
        r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#,
        r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#,
        "[DONE]",
    ]);
    let second = events(&[r#"{"choices":[{"delta":{"content":"again"}}]}"#, "[DONE]"]);
    let models = http("200 OK", r#"{"data":[{"id":"kimi-x"}]}"#);
    let (url, asked) = server(vec![models, first, second]);
    let output = chat(
        &[
            "--url",
            &url,
            "--api-key",
            "secret",
            "-s",
            "Rules.",
            "-n",
            "4",
        ],
        "Hi\n/think off\nMore\n",
    );
    assert!(output.status.success(), "{}", err(&output));
    assert_eq!(out(&output), "Hello\u{fffd}\nagain\n");
    for words in ["hm \u{fffd}[2J", "calls f{}", "4 tokens", "cut short"] {
        assert!(err(&output).contains(words), "{words}: {}", err(&output));
    }
    let (head, _) = asked.recv().unwrap();
    assert!(head.starts_with("get /v1/models "), "{head}");
    assert!(head.contains("authorization: bearer secret"), "{head}");
    let (head, body) = asked.recv().unwrap();
    assert!(head.starts_with("post /v1/chat/completions "), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["model"], "kimi-x");
    assert_eq!(body["max_tokens"], 4);
    assert_eq!(body.get("temperature"), None);
    assert_eq!(body["messages"][0]["content"], "Rules.");
    let (_, body) = asked.recv().unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["chat_template_kwargs"]["thinking"], false);
    let said = &body["messages"][2];
    assert_eq!(said["content"], "Hello\u{7}");
    assert_eq!(said["reasoning_content"], "hm \u{1b}[2J");
    assert_eq!(said["tool_calls"][0]["function"]["arguments"], "{}");
}

#[test]
fn a_server_s_refusals_are_passed_on() {
    let refusal = http("401 Unauthorized", r#"{"error":{"message":"wrong key"}}"#);
    let broken = events(&[r#"{"choices":[{"delta":{"content":"Hel"}}]}"#]);
    let failed = events(&[r#"{"error":{"message":"out of memory"}}"#]);
    for (answer, words) in [
        (refusal, "wrong key"),
        (broken, "broke off"),
        (failed, "out of memory"),
    ] {
        let (url, _asked) = server(vec![answer]);
        let output = chat(
            &["--url", &format!("{url}/v1/"), "--name", "kimi", "Hi"],
            "",
        );
        assert!(!output.status.success(), "{words}");
        assert!(err(&output).contains(words), "{}", err(&output));
    }
}

/// `kimi chat` in a terminal that `script` makes, and what it has shown so far.
struct Terminal {
    child: Child,
    shown: mpsc::Receiver<u8>,
    text: String,
}

impl Terminal {
    fn open(args: &str) -> Self {
        // No shell is left between the two, which Ctrl-C would end.
        let command = format!("exec {} chat {args}", env!("CARGO_BIN_EXE_kimi"));
        let mut child = Command::new("script")
            .args(["--quiet", "--return", "--flush", "--command", &command])
            .arg("/dev/null")
            .env("TERM", "xterm")
            .env_remove("RUST_LOG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let (sender, shown) = mpsc::channel();
        thread::spawn(move || {
            for byte in BufReader::new(stdout).bytes() {
                if byte.is_err() || sender.send(byte.unwrap()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            shown,
            text: String::new(),
        }
    }

    /// Waits until `words` are shown, and forgets what came before.
    fn wait(&mut self, words: &str) {
        while !self.text.contains(words) {
            match self.shown.recv_timeout(Duration::from_secs(120)) {
                Ok(byte) => self.text.push(char::from(byte)),
                Err(error) => panic!("{error}: no '{words}' in {:?}", self.text),
            }
        }
        self.text.clear();
    }

    fn type_in(&mut self, keys: &str) {
        let mut stdin = self.child.stdin.as_ref().unwrap();
        stdin.write_all(keys.as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    /// Waits for the end, which has to be a good one. `script` is kept from its own: at the end of its input it would
    /// type Ctrl-D.
    fn end(mut self) {
        let keyboard = self.child.stdin.take();
        let status = self.child.wait().unwrap();
        drop(keyboard);
        assert!(
            status.success(),
            "{status}, after {:?}",
            self.shown.try_iter().map(char::from).collect::<String>()
        );
    }
}

#[test]
fn a_line_is_edited_and_comes_back_in_a_terminal() {
    let args = format!("--model {} --temperature 0 -t 2", model().display());
    let mut terminal = Terminal::open(&args);
    terminal.wait("> ");
    // A letter too many, and one that is missing at the beginning.
    terminal.type_in("ho built the arkk\u{7f}?\u{1}W\r");
    terminal.wait("Noah built the ark.");
    terminal.wait("> ");
    terminal.type_in("never sent\u{3}");
    terminal.wait("Ctrl-D or /exit leaves");
    terminal.wait("> ");
    // Up: the question again.
    terminal.type_in("\u{1b}[A\r");
    terminal.wait("Noah built the ark.");
    terminal.wait("> ");
    terminal.type_in("\u{4}");
    terminal.end();
}

#[test]
fn ctrl_c_stops_an_answer_and_not_the_chat() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        request(&stream);
        let event = "data: {\"choices\":[{\"delta\":{\"content\":\"Once\"}}]}\n\n";
        // The rest of it never comes.
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n";
        (&stream)
            .write_all(format!("{head}{event}").as_bytes())
            .unwrap();
        // Until the client leaves.
        _ = (&stream).read(&mut [0]);
    });
    let mut terminal = Terminal::open(&format!("--url {url} --name kimi"));
    terminal.wait("> ");
    terminal.type_in("Tell me a story\r");
    terminal.wait("Once");
    terminal.type_in("\u{3}");
    terminal.wait("stopped");
    terminal.wait("> ");
    terminal.type_in("/exit\r");
    terminal.end();
}
