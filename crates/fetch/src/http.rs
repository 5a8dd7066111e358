//! Requests to the hub and to signed URLs: the two clients, who gets the token, what a status means, and ranged reads.
//! Knows no files and no retries.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE, RETRY_AFTER};
use reqwest::{Response, StatusCode, redirect};
use url::Url;

use crate::backoff::Trouble;
use crate::error::Error;

const CONNECT: Duration = Duration::from_secs(15);
/// Longest silence in an answer that is not file content; content has the transfer's watchdog.
const SILENCE: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("kimi-fetch/", env!("CARGO_PKG_VERSION"));

/// A client for metadata: follows redirects (renamed repositories), dropping the token when the origin changes.
pub(crate) fn metadata_client() -> Result<reqwest::Client, Error> {
    build(
        reqwest::Client::builder()
            .redirect(redirect::Policy::limited(5))
            .read_timeout(SILENCE),
    )
}

/// A client for addresses and content: follows nothing by itself. HTTP/1.1, because parallel ranges over one HTTP/2
/// connection share one TCP window.
pub(crate) fn content_client() -> Result<reqwest::Client, Error> {
    build(
        reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .http1_only(),
    )
}

fn build(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    builder
        .user_agent(AGENT)
        .connect_timeout(CONNECT)
        .build()
        .map_err(|error| Error::HubUnreachable {
            url: "any hub".into(),
            detail: format!(
                "no HTTPS client: {}; SSL_CERT_FILE names the CA bundle",
                chain(&error)
            ),
        })
}

/// An error and its causes: reqwest's own text leaves out why.
pub(crate) fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

/// A URL without its query: signatures do not belong in messages.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

pub(crate) fn unreachable(url: &Url, error: &reqwest::Error) -> Trouble {
    Trouble::Retry {
        error: Error::HubUnreachable {
            url: shown(url),
            detail: chain(error),
        },
        after: None,
    }
}

/// Scheme, host and port.
pub(crate) fn same_origin(a: &Url, b: &Url) -> bool {
    a.origin() == b.origin()
}

/// What the hub refused, for telling refusals apart.
#[derive(Debug, Default)]
pub(crate) struct Refusal<'a> {
    pub(crate) endpoint: &'a str,
    pub(crate) repo: &'a str,
    pub(crate) revision: &'a str,
    /// The file, where the request was for one.
    pub(crate) path: Option<&'a str>,
    pub(crate) status: u16,
    /// `X-Error-Code`.
    pub(crate) code: Option<String>,
    /// `X-Error-Message` or the body's `error`.
    pub(crate) message: Option<String>,
    pub(crate) after: Option<Duration>,
}

impl Refusal<'_> {
    /// The error that it is. The code decides where there is one; mirrors send the bare status.
    pub(crate) fn trouble(self) -> Trouble {
        let (endpoint, repo) = (self.endpoint.to_owned(), self.repo.to_owned());
        let mut detail = format!("status {}", self.status);
        if let Some(message) = self.message.filter(|m| !m.is_empty()) {
            detail.push_str(": ");
            detail.extend(message.chars().take(300));
        }
        let bad_token = detail.contains("Invalid credentials");
        let error = match (self.code.as_deref(), self.status) {
            (Some("GatedRepo"), _) => Error::Gated { repo, detail },
            (Some("RevisionNotFound"), _) => Error::RevisionNotFound {
                repo,
                revision: self.revision.to_owned(),
            },
            (Some("EntryNotFound"), _) => Error::MissingShard {
                repo,
                missing: self.path.unwrap_or("a listed file").to_owned(),
                count: 1,
            },
            (_, 401) if bad_token => Error::Unauthorized {
                endpoint,
                repo,
                detail,
            },
            (Some("RepoNotFound"), _) | (_, 404) => Error::RepoNotFound {
                endpoint,
                repo,
                detail,
            },
            (_, 401 | 403) => Error::Unauthorized {
                endpoint,
                repo,
                detail,
            },
            (_, 429) => {
                let error = Error::RateLimited {
                    url: endpoint,
                    detail,
                };
                return Trouble::Retry {
                    error,
                    after: self.after,
                };
            }
            _ => {
                let error = Error::HubUnreachable {
                    url: endpoint,
                    detail,
                };
                return Trouble::Retry {
                    error,
                    after: self.after,
                };
            }
        };
        Trouble::Fatal(error)
    }
}

/// How long the other side asks to wait: `Retry-After` in seconds, else the `t=` of `RateLimit`.
pub(crate) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = |text: &str| text.trim().parse::<u64>().ok().map(Duration::from_secs);
    let limit = || {
        let header = text("ratelimit")?;
        // `"resolvers";r=0;t=55`: `r` requests left for the next `t` seconds.
        seconds(
            header
                .split(';')
                .find_map(|part| part.trim().strip_prefix("t="))?,
        )
    };
    text(RETRY_AFTER.as_str()).and_then(seconds).or_else(limit)
}

/// `Authorization` for a token; marked so that no log shows it.
pub(crate) fn bearer(token: &str) -> Option<(reqwest::header::HeaderName, HeaderValue)> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some((AUTHORIZATION, value))
}

/// Where a file's bytes are.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) url: Url,
    /// Only where the address is on the hub's own origin.
    pub(crate) token: Option<String>,
}

/// Why a ranged read did not start.
#[derive(Debug)]
pub(crate) enum RangeTrouble {
    /// The address may have expired: ask the hub for another.
    Address(Error),
    /// The file is not as long as listed.
    Size(Error),
    /// Anything else.
    Other(Trouble),
}

/// Opens bytes `start..end` of a file of `size` bytes. The answer's own account of what it holds is checked.
pub(crate) async fn open_range(
    client: &reqwest::Client,
    address: &Address,
    (start, end, size): (u64, u64, u64),
    path: &str,
) -> Result<Response, RangeTrouble> {
    let url = &address.url;
    let mut request = client
        .get(url.clone())
        .header(RANGE, format!("bytes={start}-{}", end - 1));
    if let Some((name, value)) = address.token.as_deref().and_then(bearer) {
        request = request.header(name, value);
    }
    let sent = tokio::time::timeout(SILENCE + CONNECT, request.send()).await;
    let Ok(sent) = sent else {
        let error = Error::HubUnreachable {
            url: shown(url),
            detail: "no answer in time".into(),
        };
        return Err(RangeTrouble::Other(Trouble::Retry { error, after: None }));
    };
    let response = sent.map_err(|error| RangeTrouble::Other(unreachable(url, &error)))?;
    let status = response.status();
    let found = response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let total = found
        .as_deref()
        .and_then(|text| text.rsplit('/').next()?.parse::<u64>().ok());
    match status {
        StatusCode::PARTIAL_CONTENT => match found.as_deref().and_then(content_range) {
            Some((first, _, total)) if total != size => {
                tracing::debug!(first, total, "unexpected size");
                Err(RangeTrouble::Size(size_mismatch(path, size, total)))
            }
            Some((first, last, _)) if first == start && last == end - 1 => Ok(response),
            _ => Err(RangeTrouble::Other(Trouble::Retry {
                error: Error::BadAnswer {
                    what: path.to_owned(),
                    detail: format!("asked for {start}-{}, got {found:?}", end - 1),
                },
                after: None,
            })),
        },
        // A server may answer a range that is the whole file with the whole file.
        StatusCode::OK if start == 0 && end == size && response.content_length() == Some(size) => {
            Ok(response)
        }
        StatusCode::OK => Err(RangeTrouble::Other(Trouble::Fatal(
            Error::RangesUnsupported {
                url: shown(url),
                detail: format!("asked for {start}-{}, got the whole file", end - 1),
            },
        ))),
        StatusCode::RANGE_NOT_SATISFIABLE => Err(RangeTrouble::Size(size_mismatch(
            path,
            size,
            total.unwrap_or_default(),
        ))),
        StatusCode::UNAUTHORIZED
        | StatusCode::FORBIDDEN
        | StatusCode::NOT_FOUND
        | StatusCode::GONE => Err(RangeTrouble::Address(Error::HubUnreachable {
            url: shown(url),
            detail: format!("status {status}"),
        })),
        _ => {
            let after = asked_wait(response.headers());
            let (url, detail) = (shown(url), format!("status {status}"));
            let error = match status {
                StatusCode::TOO_MANY_REQUESTS => Error::RateLimited { url, detail },
                _ => Error::HubUnreachable { url, detail },
            };
            Err(RangeTrouble::Other(Trouble::Retry { error, after }))
        }
    }
}

fn size_mismatch(path: &str, listed: u64, found: u64) -> Error {
    Error::SizeMismatch {
        path: path.to_owned(),
        listed,
        found,
    }
}

/// First, last and total of `bytes 0-9/100`.
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_of_the_hubs_waits_are_understood() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs
                .iter()
                .map(|(k, v)| (k.parse().unwrap(), HeaderValue::from_static(v)))
                .collect::<HeaderMap>()
        };
        let wait = |pairs: &[(&'static str, &'static str)]| {
            asked_wait(&headers(pairs)).map(|d| d.as_secs())
        };
        assert_eq!(wait(&[("retry-after", "12")]), Some(12));
        assert_eq!(wait(&[("ratelimit", "\"resolvers\";r=0;t=55")]), Some(55));
        assert_eq!(
            wait(&[("retry-after", "3"), ("ratelimit", "\"api\";r=0;t=55")]),
            Some(3)
        );
        assert_eq!(
            wait(&[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")]),
            None
        );
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/100"), Some((5, 9, 100)));
        assert_eq!(content_range("bytes */100"), None);
        assert_eq!(content_range("bytes 5-9/*"), None);
    }
}
