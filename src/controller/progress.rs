//! What a fetch pod says at `/progress`: bounded, and for the status only. It must not know how a page is asked for.

use std::time::Duration;

use serde::Deserialize;

use super::page::{Answer, Error, Pages};

/// A pod is asked at most this often, and a status changes for progress at most this often.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// A message ends up in a status condition.
const MAX_MESSAGE: usize = 512;

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

/// One answer: fresh from the pod or remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Polled {
    pub progress: Option<Progress>,
    /// Bytes that came in since the previous answer of this pod; `None` if this answer is remembered.
    pub new_bytes: Option<u64>,
    /// True if the pod was asked now and did not answer.
    pub failed: bool,
}

/// Asks fetch pods.
#[derive(Debug)]
pub struct Poller {
    pages: Pages<Progress>,
}

impl Default for Poller {
    fn default() -> Self {
        Self {
            pages: Pages::new("/progress", INTERVAL, parse),
        }
    }
}

impl Poller {
    /// The progress of the pod with this UID at this address. A pod that does not answer yields what it said last.
    pub async fn poll(&self, pod_uid: &str, pod_ip: &str) -> Polled {
        match self.pages.ask(pod_uid, pod_ip).await {
            Answer::Fresh { page, before } => Polled {
                new_bytes: Some(before.map_or(0, |p| page.downloaded.saturating_sub(p.downloaded))),
                progress: Some(page),
                failed: false,
            },
            Answer::Remembered(progress) => Polled {
                progress,
                ..Polled::default()
            },
            Answer::Silent(progress) => Polled {
                progress,
                new_bytes: None,
                failed: true,
            },
        }
    }
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
    #![allow(clippy::unwrap_used)]

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
}
