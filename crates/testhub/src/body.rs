//! File content with ranges, at a bounded speed and with the body faults acted out. Knows files and HTTP ranges, not
//! who may read them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, RANGE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::stream;

use crate::errors::Refusal;
use crate::faults::Fault;
use crate::repo::Entry;
use crate::state::Shared;

/// Bytes read and sent at a time: small enough that a cut or a slow pace lands close to where it should.
const CHUNK: u64 = 64 << 10;

/// The response to a `GET` of `file`, whole or the part that `headers` ask for.
pub(crate) fn send(
    hub: &Arc<Shared>,
    path: &str,
    file: &Entry,
    headers: &HeaderMap,
    fault: Option<Fault>,
) -> Result<Response, Refusal> {
    let size = match fault {
        Some(Fault::Truncate { bytes }) => file.size.saturating_sub(bytes),
        Some(Fault::Oversize { bytes }) => file.size.saturating_add(bytes),
        _ => file.size,
    };
    let asked = headers
        .get(RANGE)
        .and_then(|value| value.to_str().ok())
        .filter(|_| fault != Some(Fault::IgnoreRange));
    let range = asked
        .map(|text| parse(text, size).ok_or_else(|| Refusal::range(size)))
        .transpose()?;
    let (start, end) = range.unwrap_or((0, size));
    let disk = File::open(&file.disk).map_err(|error| Refusal::internal(&error))?;
    let content = Content {
        hub: hub.clone(),
        path: path.to_owned(),
        disk: Arc::new(disk),
        at: start,
        start,
        end,
        fault,
    };
    let etag = file.lfs.as_ref().map_or(&file.oid, |(sha256, _)| sha256);
    let common = [
        (ACCEPT_RANGES, "bytes".to_owned()),
        (CONTENT_TYPE, "application/octet-stream".to_owned()),
        (ETAG, format!("\"{etag}\"")),
        (CONTENT_LENGTH, (end - start).to_string()),
    ];
    let body = Body::from_stream(stream::try_unfold(content, Content::next));
    Ok(match range {
        Some(_) => {
            let shown = format!("bytes {start}-{}/{size}", end - 1);
            (
                StatusCode::PARTIAL_CONTENT,
                common,
                [(CONTENT_RANGE, shown)],
                body,
            )
                .into_response()
        }
        None => (common, body).into_response(),
    })
}

struct Content {
    hub: Arc<Shared>,
    path: String,
    disk: Arc<File>,
    at: u64,
    start: u64,
    end: u64,
    fault: Option<Fault>,
}

impl Content {
    async fn next(mut self) -> io::Result<Option<(Vec<u8>, Self)>> {
        let mut want = CHUNK.min(self.end - self.at);
        let sent = self.at - self.start;
        match self.fault {
            Some(Fault::Stall { after_bytes }) if sent >= after_bytes => {
                std::future::pending::<()>().await
            }
            Some(Fault::Cut { after_bytes }) if sent >= after_bytes => {
                return Err(io::Error::other("injected cut"));
            }
            Some(Fault::Stall { after_bytes } | Fault::Cut { after_bytes }) => {
                want = want.min(after_bytes - sent)
            }
            _ => {}
        }
        if want == 0 {
            return Ok(None);
        }
        self.hub.pace(want).await;
        let (disk, at) = (self.disk.clone(), self.at);
        let mut bytes = tokio::task::spawn_blocking(move || read(&disk, at, want))
            .await
            .map_err(io::Error::other)??;
        if self.fault == Some(Fault::Corrupt) && sent == 0 {
            bytes[0] ^= 1;
        }
        self.hub.count(|stats| {
            stats.bytes_served += want;
            *stats.files.entry(self.path.clone()).or_default() += want;
        });
        self.at += want;
        Ok(Some((bytes, self)))
    }
}

/// `want` bytes from `at`; what lies beyond the file's end is zeros.
fn read(disk: &File, at: u64, want: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; want as usize];
    let mut filled = 0;
    while filled < bytes.len() {
        let read = disk.read_at(&mut bytes[filled..], at + filled as u64)?;
        if read == 0 {
            break;
        }
        filled += read;
    }
    Ok(bytes)
}

/// `bytes=a-b`, `bytes=a-` or `bytes=-n` as a half-open range; `None` where it cannot be satisfied.
fn parse(text: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (start, end) = match (first, last) {
        ("", count) => (size.saturating_sub(count.parse().ok()?), size),
        (first, "") => (first.parse().ok()?, size),
        (first, last) => (
            first.parse().ok()?,
            last.parse::<u64>().ok()?.checked_add(1)?.min(size),
        ),
    };
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn ranges_as_in_rfc_9110() {
        assert_eq!(parse("bytes=0-0", 10), Some((0, 1)));
        assert_eq!(parse("bytes=2-", 10), Some((2, 10)));
        assert_eq!(parse("bytes=-3", 10), Some((7, 10)));
        assert_eq!(parse("bytes=8-99", 10), Some((8, 10)));
        assert_eq!(parse("bytes=10-", 10), None);
        assert_eq!(parse("bytes=5-4", 10), None);
        assert_eq!(parse("lines=0-1", 10), None);
    }
}
