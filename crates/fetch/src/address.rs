//! From a file of a repository to the address of its bytes, which is signed and expires. Knows the headers of the hub's
//! `resolve` route and checks them against the listing.

use reqwest::Method;
use reqwest::header::{HeaderMap, LOCATION};

use crate::backoff::{Trouble, persist};
use crate::error::Error;
use crate::http::{self, Address};
use crate::hub::{Hub, Listed};
use crate::names::is_hex;

/// Redirects within the hub before a file's address.
const MAX_HOPS: usize = 5;

impl Hub {
    /// Where the bytes of `file` are now: one HEAD, redirects within the hub followed, the one that leaves it not.
    /// What the answer says of commit, size and checksum must agree with the listing.
    pub(crate) async fn address(
        &self,
        repo: &str,
        commit: &str,
        file: &Listed,
    ) -> Result<Address, Error> {
        persist(self.patience, || self.address_once(repo, commit, file)).await
    }

    async fn address_once(
        &self,
        repo: &str,
        commit: &str,
        file: &Listed,
    ) -> Result<Address, Trouble> {
        let mut url = self.url(&[], repo, &["resolve", commit], &file.path);
        for _ in 0..MAX_HOPS {
            let response = self.send(&self.content, Method::HEAD, &url).await?;
            let status = response.status();
            if !status.is_success() && !status.is_redirection() {
                return Err(self.refusal(response, repo, commit, Some(&file.path)).await);
            }
            check_headers(repo, commit, file, response.headers())?;
            let location = response
                .headers()
                .get(LOCATION)
                .and_then(|value| value.to_str().ok());
            match location.filter(|_| status.is_redirection()) {
                None => break,
                Some(location) => {
                    url = url
                        .join(location)
                        .map_err(|_| bad_answer(&file.path, "an unusable Location"))?;
                }
            }
            if !http::same_origin(&url, &self.endpoint) {
                return Ok(Address { url, token: None });
            }
        }
        let token = self
            .token
            .as_ref()
            .filter(|_| http::same_origin(&url, &self.endpoint));
        Ok(Address {
            url,
            token: token.map(crate::hub::Token::now),
        })
    }
}

fn bad_answer(what: &str, detail: impl Into<String>) -> Error {
    Error::BadAnswer {
        what: what.to_owned(),
        detail: detail.into(),
    }
}

fn check_headers(
    repo: &str,
    commit: &str,
    file: &Listed,
    headers: &HeaderMap,
) -> Result<(), Trouble> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(found) = text("x-repo-commit")
        && is_hex(commit, 40)
        && found != commit
    {
        let (expected, found) = (commit.to_owned(), format!("commit {found}"));
        return Err(Error::DigestMismatch {
            repo: repo.to_owned(),
            expected,
            found,
        }
        .into());
    }
    if let Some(found) = text("x-linked-size").and_then(|size| size.parse().ok())
        && found != file.size
    {
        return Err(Error::SizeMismatch {
            path: file.path.clone(),
            listed: file.size,
            found,
        }
        .into());
    }
    let etag = text("x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
    if let (Some(found), Some(expected)) = (etag.filter(|etag| is_hex(etag, 64)), &file.sha256)
        && found != expected
    {
        let (expected, found) = (expected.clone(), format!("{}: SHA-256 {found}", file.path));
        return Err(Error::DigestMismatch {
            repo: repo.to_owned(),
            expected,
            found,
        }
        .into());
    }
    Ok(())
}
