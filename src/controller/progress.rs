//! Reads `/progress` of a fetch pod, at most once in five seconds for one pod. What the pod says is for the status
//! only: it is bounded, checked and never decides anything. Knows no Kubernetes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// A pod is asked at most this often, and a status changes for progress at most this often.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// Connect, ask and read within this time, or go on without.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The answer has about 300 bytes.
const MAX_BODY: usize = 16 * 1024;
/// A message ends up in a status condition.
const MAX_MESSAGE: usize = 512;
const PORT: u16 = 8081;

/// What a fetch pod says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// `listing`, `downloading`, `verifying`, `done` or `failed`.
    pub state: State,
    /// Size of the whole artifact.
    pub bytes: u64,
    /// Bytes on disk and durable.
    pub downloaded: u64,
    #[serde(default)]
    pub bytes_per_second: u64,
    #[serde(default)]
    pub eta_seconds: Option<u64>,
    #[serde(default)]
    pub shards: u32,
    #[serde(default)]
    pub shards_done: u32,
    #[serde(default)]
    pub message: String,
}

/// The fetch pod's own state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    Listing,
    Downloading,
    Verifying,
    Done,
    Failed,
}

/// Why no progress could be read. The status then shows what was known before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("pod address {0:?} is not an IP address")]
    Address(String),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("HTTP exchange failed: {0}")]
    Http(#[source] hyper::Error),
    #[error("HTTP status {0}")]
    Status(u16),
    #[error("answer longer than {MAX_BODY} bytes or cut short")]
    Body,
    #[error("answer is not the expected JSON: {0}")]
    Json(#[source] serde_json::Error),
}

/// Remembers the last answer of every pod asked, so that a burst of reconciles asks once.
#[derive(Debug, Default)]
pub struct Poller {
    seen: Mutex<HashMap<String, Seen>>,
}

#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    progress: Option<Progress>,
}

/// One answer: fresh from the pod or remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    pub progress: Option<Progress>,
    /// Bytes that came in since the previous answer of this pod; `None` if this answer is remembered.
    pub new_bytes: Option<u64>,
    /// True if the pod was asked now and did not answer.
    pub failed: bool,
}

impl Poller {
    /// The progress of the pod with this UID at this address. A pod that does not answer yields what it said last.
    pub async fn poll(&self, pod_uid: &str, pod_ip: &str) -> Polled {
        let before = self.take_turn(pod_uid);
        let Some(before) = before else {
            return Polled {
                progress: self.remembered(pod_uid),
                ..Polled::default()
            };
        };
        match read(pod_ip, PORT).await {
            Ok(progress) => {
                let new_bytes =
                    before.map_or(0, |p| progress.downloaded.saturating_sub(p.downloaded));
                self.remember(pod_uid, Some(progress.clone()));
                Polled {
                    progress: Some(progress),
                    new_bytes: Some(new_bytes),
                    failed: false,
                }
            }
            Err(error) => {
                tracing::debug!(pod_ip, %error, "no progress from the fetch pod");
                Polled {
                    progress: before,
                    new_bytes: None,
                    failed: true,
                }
            }
        }
    }

    /// Claims the right to ask now: `Some(last answer)` if the interval has passed, `None` if it is too early.
    fn take_turn(&self, pod_uid: &str) -> Option<Option<Progress>> {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Pods come and go; nobody asks about an old one again.
        seen.retain(|_, entry| now.duration_since(entry.at) < 20 * INTERVAL);
        let last = seen.get(pod_uid).cloned();
        if last
            .as_ref()
            .is_some_and(|entry| now.duration_since(entry.at) < INTERVAL)
        {
            return None;
        }
        let progress = last.and_then(|entry| entry.progress);
        seen.insert(
            pod_uid.to_owned(),
            Seen {
                at: now,
                progress: progress.clone(),
            },
        );
        Some(progress)
    }

    fn remember(&self, pod_uid: &str, progress: Option<Progress>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(pod_uid) {
            entry.progress = progress;
        }
    }

    fn remembered(&self, pod_uid: &str) -> Option<Progress> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(pod_uid).and_then(|entry| entry.progress.clone())
    }
}

async fn read(pod_ip: &str, port: u16) -> Result<Progress, Error> {
    let ip: IpAddr = pod_ip
        .parse()
        .map_err(|_| Error::Address(pod_ip.to_owned()))?;
    let body = tokio::time::timeout(TIMEOUT, get(SocketAddr::new(ip, port)))
        .await
        .map_err(|_| Error::Timeout)??;
    parse(&body)
}

async fn get(address: SocketAddr) -> Result<Bytes, Error> {
    let stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Error::Http)?;
    // Ends by itself: the request asks the pod to close, and the timeout around this drops the sender.
    let connection = tokio::spawn(connection);
    let request = Request::get("/progress")
        .header(HOST, address.to_string())
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let answer = async {
        let request = request.map_err(|_| Error::Body)?;
        let response = sender.send_request(request).await.map_err(Error::Http)?;
        if response.status() != hyper::StatusCode::OK {
            return Err(Error::Status(response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), MAX_BODY)
            .collect()
            .await
            .map_err(|_| Error::Body)?;
        Ok(body.to_bytes())
    };
    let answer = answer.await;
    connection.abort();
    answer
}

/// Parses and bounds an answer: more downloaded than there is, or an ETA of centuries, is cut to what can be shown.
fn parse(body: &[u8]) -> Result<Progress, Error> {
    let mut progress: Progress = serde_json::from_slice(body).map_err(Error::Json)?;
    progress.bytes = progress.bytes.min(i64::MAX as u64);
    progress.downloaded = progress.downloaded.min(progress.bytes);
    progress.eta_seconds = progress.eta_seconds.filter(|&eta| eta < 366 * 86_400);
    progress.bytes_per_second = progress.bytes_per_second.min(i64::MAX as u64);
    if progress.message.len() > MAX_MESSAGE {
        let end = progress.message.floor_char_boundary(MAX_MESSAGE);
        progress.message.truncate(end);
    }
    Ok(progress)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const ANSWER: &str = r#"{"state":"downloading","bytes":100,"downloaded":250,"bytesPerSecond":7,
        "etaSeconds":99999999999,"shards":3,"shardsDone":1,"message":""}"#;

    #[test]
    fn numbers_are_bounded() {
        let progress = parse(ANSWER.as_bytes()).unwrap();
        assert_eq!(
            (progress.downloaded, progress.eta_seconds, progress.shards),
            (100, None, 3)
        );
        assert!(matches!(parse(b"<html>"), Err(Error::Json(_))));
        assert!(matches!(
            parse(br#"{"state":"dancing","bytes":1,"downloaded":1}"#),
            Err(Error::Json(_))
        ));
        let long = format!(
            r#"{{"state":"failed","bytes":1,"downloaded":1,"message":"{}"}}"#,
            "é".repeat(600)
        );
        assert!(parse(long.as_bytes()).unwrap().message.len() <= MAX_MESSAGE);
    }

    async fn one_answer(response: String) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(response.as_bytes()).await;
        });
        address
    }

    #[tokio::test]
    async fn answers_are_read_and_long_ones_refused() {
        let ok = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        let address = one_answer(ok).await;
        assert_eq!(
            read("127.0.0.1", address.port()).await.unwrap().state,
            State::Downloading
        );

        let long = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n{}",
            " ".repeat(20000)
        );
        let address = one_answer(long).await;
        assert!(matches!(
            read("127.0.0.1", address.port()).await,
            Err(Error::Body)
        ));

        let address = one_answer("HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        assert!(matches!(
            read("127.0.0.1", address.port()).await,
            Err(Error::Status(503))
        ));
        assert!(matches!(read("fetch-pod", 1).await, Err(Error::Address(_))));
    }

    #[tokio::test]
    async fn a_silent_pod_costs_two_seconds_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let before = Instant::now();
        assert!(matches!(read("127.0.0.1", port).await, Err(Error::Timeout)));
        assert!(before.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn one_question_in_five_seconds() {
        let poller = Poller::default();
        assert_eq!(poller.take_turn("pod-1"), Some(None));
        assert_eq!(poller.take_turn("pod-1"), None);
        assert_eq!(poller.take_turn("pod-2"), Some(None));
        poller.remember("pod-1", Some(parse(ANSWER.as_bytes()).unwrap()));
        assert_eq!(poller.remembered("pod-1").unwrap().downloaded, 100);
    }
}
