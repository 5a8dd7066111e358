//! HTTP clients that never retry: one request on one connection, every fault counted. Written on hyper's connection
//! API because pooled clients quietly repeat a request when an idle connection dies, which is what must be seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Longest wait for a connection. A Service leads to a server at once or nowhere; TCP's own patience, of one second, then
/// two, then four, would blur when it came back.
const CONNECT: Duration = Duration::from_millis(500);

/// How a client uses its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One connection for as long as the server keeps it.
    KeepAlive,
    /// A new connection for every request.
    Fresh,
    /// A new connection and a streamed answer, which must end in `[DONE]`.
    Streaming,
}

/// What a client, or several, saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub ok: usize,
    pub failures: Vec<String>,
    /// Answers by `system_fingerprint`: which weights gave them.
    pub by_weights: BTreeMap<String, usize>,
    /// Longest time between two answers of one client.
    pub longest_gap: Duration,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.failures.extend(other.failures);
        for (weights, count) in other.by_weights {
            *self.by_weights.entry(weights).or_default() += count;
        }
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }

    /// Requests sent in all.
    pub fn total(&self) -> usize {
        self.ok + self.failures.len()
    }
}

/// Clients asking until told to stop.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    count: Arc<std::sync::atomic::AtomicUsize>,
    tasks: JoinSet<Tally>,
}

impl Load {
    /// One client per entry of `modes`, each asking `question` of `address` (`ip:port`).
    pub fn start(address: &str, question: &str, modes: &[Mode]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        for &mode in modes {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            let (address, question) = (address.to_owned(), question.to_owned());
            tasks.spawn(async move { ask_until(&address, &question, mode, &stop, &count).await });
        }
        Self { stop, count, tasks }
    }

    /// Requests answered so far, well or badly.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Ends the clients after the request each is in.
    pub async fn stop(mut self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        while let Some(joined) = self.tasks.join_next().await {
            match joined {
                Ok(tally) => all.add(tally),
                Err(error) => all.failures.push(format!("client died: {error}")),
            }
        }
        all
    }
}

async fn ask_until(
    address: &str,
    question: &str,
    mode: Mode,
    stop: &AtomicBool,
    count: &std::sync::atomic::AtomicUsize,
) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    let mut last = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        match ask_once(address, question, mode, &mut connection).await {
            Ok(answer) => {
                tally.ok += 1;
                *tally.by_weights.entry(answer.weights).or_default() += 1;
                tally.longest_gap = tally.longest_gap.max(last.elapsed());
                last = Instant::now();
            }
            Err(error) => {
                tally.failures.push(format!("{mode:?}: {error:#}"));
                connection = None;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        count.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

/// One answer: its text and the weights that gave it.
#[derive(Clone, Debug)]
pub struct Answer {
    pub text: String,
    pub weights: String,
}

/// Asks once on a connection of its own.
///
/// # Errors
/// Any fault: no connection, reset, non-2xx, malformed or cut body.
pub async fn ask(address: &str, question: &str, mode: Mode) -> Result<Answer> {
    ask_once(address, question, mode, &mut None).await
}

async fn connect(address: &str) -> Result<SendRequest<Full<Bytes>>> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address));
    let stream = stream.await.context("connecting")?.context("connecting")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .context("handshake")?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn ask_once(
    address: &str,
    question: &str,
    mode: Mode,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<Answer> {
    let mut sender = match kept.take() {
        Some(mut sender) => {
            sender
                .ready()
                .await
                .context("kept connection was closed without `Connection: close`")?;
            sender
        }
        None => connect(address).await?,
    };
    let body = json!({
        "model": "kimi-tiny",
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 24, "temperature": 0, "stream": mode == Mode::Streaming,
    });
    let mut request = hyper::Request::post("/v1/chat/completions")
        .header("host", address)
        .header("content-type", "application/json");
    if mode != Mode::KeepAlive {
        request = request.header("connection", "close");
    }
    let response = sender
        .send_request(request.body(Full::from(body.to_string()))?)
        .await
        .context("sending")?;
    let status = response.status();
    let closes = response
        .headers()
        .get("connection")
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close"));
    let bytes = response
        .into_body()
        .collect()
        .await
        .context("reading the body")?
        .to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if !status.is_success() {
        bail!("status {status}: {text}");
    }
    if mode == Mode::KeepAlive && !closes {
        *kept = Some(sender);
    }
    if mode == Mode::Streaming {
        read_stream(&text)
    } else {
        read_whole(&text)
    }
}

fn read_whole(text: &str) -> Result<Answer> {
    let value: Value = serde_json::from_str(text).with_context(|| format!("not JSON: {text}"))?;
    let content = value["choices"][0]["message"]["content"]
        .as_str()
        .with_context(|| format!("no content: {text}"))?;
    Ok(Answer {
        text: content.to_owned(),
        weights: fingerprint(&value),
    })
}

fn read_stream(text: &str) -> Result<Answer> {
    let mut answer = Answer {
        text: String::new(),
        weights: String::new(),
    };
    for line in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        if line == "[DONE]" {
            return Ok(answer);
        }
        let chunk: Value =
            serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        if let Some(delta) = chunk["choices"][0]["delta"]["content"].as_str() {
            answer.text.push_str(delta);
        }
        answer.weights = fingerprint(&chunk);
    }
    bail!("the stream was cut before [DONE]: {text}")
}

fn fingerprint(value: &Value) -> String {
    value["system_fingerprint"]
        .as_str()
        .unwrap_or("unknown")
        .to_owned()
}
