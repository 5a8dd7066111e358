//! The hub's metadata: which commit a revision is, which files it has, and where a file's bytes are. Knows the hub's
//! routes and headers, not which files anybody wants.
//!
//! The commit comes through the `hf-hub` crate. Its tree listing is not used: it drops the SHA-256 of LFS files (the
//! hub says `lfs.oid`, the crate reads `lfs.sha256`), sends the token along to whatever host a `Link` header names, and
//! cannot see `Retry-After`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::{HFClient, HFError};
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::backoff::{Trouble, persist};
use crate::error::Error;
use crate::http::{self, Refusal};
use crate::names::{check_revision, is_hex, is_safe_path, split_repo};

/// Where models are when nobody says otherwise.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
/// Limits on what a listing may hold, far above any real repository.
const MAX_FILES: usize = 100_000;
const MAX_PAGES: usize = 1_000;
const MAX_PAGE_BYTES: usize = 16 << 20;

/// A hub access token. It has no way to be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    /// Where it came from: a mounted Secret changes while we run.
    file: Option<PathBuf>,
}

impl Token {
    /// A token as typed or read, without surrounding white space; `None` when nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self {
            text: text.to_owned(),
            file: None,
        })
    }

    /// Reads a token from a mounted Secret; requests use what the file holds when they are sent.
    ///
    /// # Errors
    /// [`Error::SecretMissing`] when the file is not there or empty.
    pub fn read(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let token = Self::new(&text).ok_or_else(|| Error::SecretMissing {
            file: file.to_owned(),
        })?;
        let file = Some(file.to_owned());
        Ok(Self { file, ..token })
    }

    /// The token as it is now. A file that vanished or is empty is a rotation in progress: the last good text counts.
    pub(crate) fn now(&self) -> String {
        let read = |file: &PathBuf| std::fs::read_to_string(file).ok();
        self.file
            .as_ref()
            .and_then(read)
            .and_then(|text| Self::new(&text))
            .map_or_else(|| self.text.clone(), |token| token.text)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Path inside the repository: relative, with `/`, without `.` or `..`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// 64 lower-case hex digits; only files in LFS have one.
    pub sha256: Option<String>,
}

/// A client for one hub.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(crate) endpoint: Url,
    /// `endpoint` as text without a trailing slash.
    base: String,
    pub(crate) token: Option<Token>,
    metadata: HFClient,
    client: reqwest::Client,
    pub(crate) content: reqwest::Client,
    /// How long metadata requests are repeated.
    pub(crate) patience: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum TreeEntry {
    File {
        path: String,
        size: u64,
        lfs: Option<Lfs>,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Lfs {
    oid: String,
}

impl Hub {
    /// A client for the hub (or mirror) at `endpoint`. Proxies (`HTTPS_PROXY`, `NO_PROXY`, ...) and the CA bundle
    /// (`SSL_CERT_FILE`) come from the environment.
    ///
    /// # Errors
    /// [`Error::BadName`] for an endpoint that is no HTTP URL; [`Error::HubUnreachable`] when there are no CA
    /// certificates at all.
    pub fn new(endpoint: &str, token: Option<Token>) -> Result<Self, Error> {
        let base = endpoint.trim().trim_end_matches('/').to_owned();
        let url = Url::parse(&base)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some());
        let endpoint = url.ok_or_else(|| Error::BadName {
            path: base.clone(),
            what: "endpoint URL",
        })?;
        let client = http::metadata_client()?;
        let content = http::content_client()?;
        let mut builder = HFClient::builder().endpoint(&base).client(client.clone());
        // Repeating is done here, where the hub's own wait is known.
        builder = builder.retry_max_attempts(0).cache_enabled(false);
        // Given none, the crate would look for one in HF_TOKEN and the home directory and send it to any endpoint; a
        // token that cannot be a header keeps it from looking and is not sent.
        builder = builder.token(token.as_ref().map_or("\n", |token| &token.text));
        let no_client = |error: HFError| Error::HubUnreachable {
            url: base.clone(),
            detail: error.to_string(),
        };
        let metadata = builder.build().map_err(no_client)?;
        Ok(Self {
            endpoint,
            base,
            token,
            metadata,
            client,
            content,
            patience: Duration::from_secs(180),
        })
    }

    /// Sets how long metadata requests are repeated while the hub is unreachable or limits requests (default 180 s).
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The full commit id of `revision`.
    ///
    /// # Errors
    /// See [`Error`]; among them [`Error::RepoNotFound`], [`Error::RevisionNotFound`], [`Error::Unauthorized`].
    pub async fn commit(&self, repo: &str, revision: &str) -> Result<String, Error> {
        let (owner, name) = split_repo(repo)?;
        check_revision(revision)?;
        let model = self.metadata.model(owner, name);
        let ask = || async {
            let info = model.info().revision(revision).send().await;
            info.map_err(|error| self.trouble(error, repo, revision))
        };
        let info = persist(self.patience, ask).await?;
        info.sha
            .filter(|sha| is_hex(sha, 40))
            .ok_or_else(|| Error::BadAnswer {
                what: format!("{repo} at {revision}"),
                detail: "no commit id".into(),
            })
    }

    fn trouble(&self, error: HFError, repo: &str, revision: &str) -> Trouble {
        let mut refusal = Refusal {
            endpoint: &self.base,
            repo,
            revision,
            ..Refusal::default()
        };
        let (context, after) = match error {
            HFError::Http { context }
            | HFError::AuthRequired { context }
            | HFError::Forbidden { context } => (Some(context), None),
            HFError::RateLimited {
                retry_after,
                context,
            } => (Some(context), retry_after),
            HFError::RepoNotFound { context, .. } | HFError::RevisionNotFound { context, .. } => {
                (context, None)
            }
            HFError::Request { source, .. } => return http::unreachable(&self.endpoint, &source),
            other => {
                let (url, detail) = (self.base.clone(), other.to_string());
                return Trouble::Retry {
                    error: Error::HubUnreachable { url, detail },
                    after: None,
                };
            }
        };
        let Some(context) = context else {
            return Trouble::Fatal(Error::RevisionNotFound {
                repo: repo.into(),
                revision: revision.into(),
            });
        };
        refusal.status = context.status.as_u16();
        refusal.code = context.error_code;
        refusal.message = context.server_message;
        refusal.after = after;
        refusal.trouble()
    }

    /// All files of `repo` at `commit`.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::BadAnswer`] when the listing is absurd.
    pub async fn files(&self, repo: &str, commit: &str) -> Result<Vec<Listed>, Error> {
        split_repo(repo)?;
        check_revision(commit)?;
        let absurd = |detail: String| Error::BadAnswer {
            what: format!("the tree of {repo}"),
            detail,
        };
        let mut url = self.url(&["api", "models"], repo, &["tree", commit], "");
        url.set_query(Some("recursive=true"));
        let mut files = Vec::new();
        for _ in 0..MAX_PAGES {
            let (entries, next) = persist(self.patience, || self.page(&url, repo, commit)).await?;
            for entry in entries {
                let TreeEntry::File { path, size, lfs } = entry else {
                    continue;
                };
                // A name that cannot be a file below the volume's root is no candidate for download.
                if !is_safe_path(&path) {
                    tracing::warn!(path, "ignoring a file with an unusable name");
                    continue;
                }
                let sha256 = lfs
                    .map(|lfs| lfs.oid.to_ascii_lowercase())
                    .filter(|oid| is_hex(oid, 64));
                files.push(Listed { path, size, sha256 });
            }
            if files.len() > MAX_FILES {
                return Err(absurd(format!("more than {MAX_FILES} files")));
            }
            match next {
                Some(next) => url = next,
                None => return Ok(files),
            }
        }
        Err(absurd(format!("more than {MAX_PAGES} pages")))
    }

    async fn page(
        &self,
        url: &Url,
        repo: &str,
        commit: &str,
    ) -> Result<(Vec<TreeEntry>, Option<Url>), Trouble> {
        let mut response = self.send(&self.client, Method::GET, url).await?;
        if !response.status().is_success() {
            return Err(self.refusal(response, repo, commit, None).await);
        }
        let next = next_page(url, response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| http::unreachable(url, &error))?
        {
            if body.len() + chunk.len() > MAX_PAGE_BYTES {
                let detail = format!("a page of more than {MAX_PAGE_BYTES} bytes");
                return Err(Error::BadAnswer {
                    what: format!("the tree of {repo}"),
                    detail,
                }
                .into());
            }
            body.extend_from_slice(&chunk);
        }
        let entries = serde_json::from_slice(&body).map_err(|error| Trouble::Retry {
            error: Error::BadAnswer {
                what: format!("the tree of {repo}"),
                detail: error.to_string(),
            },
            after: None,
        })?;
        Ok((entries, next))
    }

    /// Sends a request for metadata; the token goes along only to the hub's own origin.
    pub(crate) async fn send(
        &self,
        client: &reqwest::Client,
        method: Method,
        url: &Url,
    ) -> Result<Response, Trouble> {
        let mut request = client.request(method, url.clone());
        if http::same_origin(url, &self.endpoint)
            && let Some((name, value)) = self
                .token
                .as_ref()
                .and_then(|token| http::bearer(&token.now()))
        {
            request = request.header(name, value);
        }
        let sent = tokio::time::timeout(Duration::from_secs(60), request.send()).await;
        match sent {
            Ok(sent) => sent.map_err(|error| http::unreachable(url, &error)),
            Err(_) => {
                let error = Error::HubUnreachable {
                    url: http::shown(url),
                    detail: "no answer in 60 s".into(),
                };
                Err(Trouble::Retry { error, after: None })
            }
        }
    }

    pub(crate) async fn refusal(
        &self,
        mut response: Response,
        repo: &str,
        revision: &str,
        path: Option<&str>,
    ) -> Trouble {
        let text = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let mut refusal = Refusal {
            endpoint: &self.base,
            repo,
            revision,
            path,
            status: response.status().as_u16(),
            code: text("x-error-code"),
            message: text("x-error-message"),
            after: http::asked_wait(response.headers()),
        };
        if refusal.message.is_none() && response.status() != StatusCode::OK {
            // The first piece of the body is enough for its `error`.
            let body = response.chunk().await.ok().flatten().unwrap_or_default();
            let value: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
            refusal.message =
                value.and_then(|value| Some(value.get("error")?.as_str()?.to_owned()));
        }
        refusal.trouble()
    }

    /// `{endpoint}/before.../{repo}/after.../{path}`, every segment escaped.
    pub(crate) fn url(&self, before: &[&str], repo: &str, after: &[&str], path: &str) -> Url {
        let mut url = self.endpoint.clone();
        // Only URLs without a host have no segments, and those were refused in `new`.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty();
            segments
                .extend(before)
                .extend(repo.split('/'))
                .extend(after);
            if !path.is_empty() {
                segments.extend(path.split('/'));
            }
        }
        url
    }
}

/// The `rel="next"` of a `Link` header, on this page's origin: a mirror may hand the hub's own links through, and the
/// token must not follow them.
fn next_page(page: &Url, headers: &HeaderMap) -> Option<Url> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let part = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    let mut next = page.join(part.split_once('<')?.1.split_once('>')?.0).ok()?;
    if !http::same_origin(&next, page) {
        let query = next.query().map(str::to_owned);
        next = page.clone();
        next.set_query(query.as_deref());
    }
    Some(next)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_next_page_stays_on_its_origin() {
        let page = Url::parse("http://mirror:1/api/models/a/b/tree/main?recursive=true").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            LINK,
            "<https://huggingface.co/api/x?cursor=2>; rel=\"next\""
                .parse()
                .unwrap(),
        );
        let next = next_page(&page, &headers).unwrap();
        assert_eq!(
            next.as_str(),
            "http://mirror:1/api/models/a/b/tree/main?cursor=2"
        );
    }

    #[test]
    fn a_token_is_not_printed() {
        assert_eq!(
            format!("{:?}", Token::new(" hf_secret\n")),
            "Some(Token(..))"
        );
        assert_eq!(Token::new(" \n"), None);
    }

    #[test]
    fn a_token_follows_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "one\n").unwrap();
        let token = Token::read(&file).unwrap();
        assert_eq!(token.now(), "one");
        std::fs::write(&file, " two ").unwrap();
        assert_eq!(token.now(), "two");
        std::fs::write(&file, "\n").unwrap();
        assert_eq!(token.now(), "one", "an empty file is no token");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(token.now(), "one");
        assert!(matches!(
            Token::read(&file),
            Err(Error::SecretMissing { .. })
        ));
    }
}
