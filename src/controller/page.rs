//! Asks a pod of ours for one small JSON page, at most once in an interval for one pod. What a pod says is for the status
//! only: it is bounded, checked and never decides anything. Knows no Kubernetes and not what a page means.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Connect, ask and read within this time, or go on without.
const TIMEOUT: Duration = Duration::from_secs(2);
/// An answer has a few hundred bytes.
const MAX_BODY: usize = 16 * 1024;
/// The health port of every pod of ours.
const PORT: u16 = 8081;

/// Why no page could be read. The status then shows what was known before.
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

/// One page of many pods, with the last answer of each, so that a burst of reconciles asks once.
#[derive(Debug)]
pub struct Pages<T> {
    path: &'static str,
    interval: Duration,
    /// Checks and bounds an answer.
    parse: fn(&[u8]) -> Result<T, Error>,
    seen: Mutex<HashMap<String, Seen<T>>>,
}

#[derive(Clone, Debug)]
struct Seen<T> {
    at: Instant,
    page: Option<T>,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<T> {
    /// Asked now; with what the pod had said before.
    Fresh { page: T, before: Option<T> },
    /// Asked lately: what it said then.
    Remembered(Option<T>),
    /// Asked now without an answer: what it had said before.
    Silent(Option<T>),
}

impl<T: Clone> Pages<T> {
    /// The page at `path`, asked for once in `interval`.
    #[must_use]
    pub fn new(
        path: &'static str,
        interval: Duration,
        parse: fn(&[u8]) -> Result<T, Error>,
    ) -> Self {
        Self {
            path,
            interval,
            parse,
            seen: Mutex::default(),
        }
    }

    /// The page of the pod with this UID at this address.
    pub async fn ask(&self, pod_uid: &str, pod_ip: &str) -> Answer<T> {
        let Some(before) = self.take_turn(pod_uid) else {
            return Answer::Remembered(self.remembered(pod_uid));
        };
        match self.read(pod_ip, PORT).await {
            Ok(page) => {
                self.remember(pod_uid, page.clone());
                Answer::Fresh { page, before }
            }
            Err(error) => {
                tracing::debug!(pod_ip, page = self.path, %error, "a pod does not answer");
                Answer::Silent(before)
            }
        }
    }

    /// Claims the right to ask now: `Some(last answer)` if the interval has passed, `None` if it is too early.
    fn take_turn(&self, pod_uid: &str) -> Option<Option<T>> {
        let now = Instant::now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Pods come and go; nobody asks about an old one again.
        seen.retain(|_, entry| now.duration_since(entry.at) < 20 * self.interval);
        let last = seen.get(pod_uid).cloned();
        if last
            .as_ref()
            .is_some_and(|entry| now.duration_since(entry.at) < self.interval)
        {
            return None;
        }
        let page = last.and_then(|entry| entry.page);
        let entry = Seen {
            at: now,
            page: page.clone(),
        };
        seen.insert(pod_uid.to_owned(), entry);
        Some(page)
    }

    fn remember(&self, pod_uid: &str, page: T) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = seen.get_mut(pod_uid) {
            entry.page = Some(page);
        }
    }

    fn remembered(&self, pod_uid: &str) -> Option<T> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(pod_uid).and_then(|entry| entry.page.clone())
    }

    async fn read(&self, pod_ip: &str, port: u16) -> Result<T, Error> {
        let ip: IpAddr = pod_ip
            .parse()
            .map_err(|_| Error::Address(pod_ip.to_owned()))?;
        let body = tokio::time::timeout(TIMEOUT, get(SocketAddr::new(ip, port), self.path))
            .await
            .map_err(|_| Error::Timeout)??;
        (self.parse)(&body)
    }
}

async fn get(address: SocketAddr, path: &'static str) -> Result<Bytes, Error> {
    let stream = TcpStream::connect(address).await.map_err(Error::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Error::Http)?;
    // Ends by itself: the request asks the pod to close, and the timeout around this drops the sender.
    let connection = tokio::spawn(connection);
    let request = Request::get(path)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn pages() -> Pages<u64> {
        Pages::new("/number", Duration::from_secs(5), |body| {
            serde_json::from_slice(body).map_err(Error::Json)
        })
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
        let pages = pages();
        let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n42".to_owned();
        let address = one_answer(ok).await;
        let read = pages.read("127.0.0.1", address.port()).await;
        assert_eq!(read.unwrap(), 42);

        let long = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n{}",
            " ".repeat(20000)
        );
        let address = one_answer(long).await;
        let read = pages.read("127.0.0.1", address.port()).await;
        assert!(matches!(read, Err(Error::Body)));

        let address = one_answer("HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        let read = pages.read("127.0.0.1", address.port()).await;
        assert!(matches!(read, Err(Error::Status(503))));
        assert!(matches!(pages.read("pod", 1).await, Err(Error::Address(_))));
    }

    #[tokio::test]
    async fn a_silent_pod_costs_two_seconds_and_no_more() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let read = pages().read("127.0.0.1", port).await;
        assert!(matches!(read, Err(Error::Timeout)));
    }

    #[test]
    fn one_question_in_an_interval() {
        let pages = pages();
        assert_eq!(pages.take_turn("pod-1"), Some(None));
        assert_eq!(pages.take_turn("pod-1"), None);
        assert_eq!(pages.take_turn("pod-2"), Some(None));
        pages.remember("pod-1", 100);
        assert_eq!(pages.remembered("pod-1"), Some(100));
    }
}
