//! Refusals in the hub's words: status, `X-Error-Code`, `X-Error-Message` and the JSON body that clients tell apart.
//! Knows nothing of why a handler refuses.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::faults::Fault;

/// An error response.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    code: Option<&'static str>,
    message: String,
    headers: Vec<(&'static str, String)>,
}

impl Refusal {
    fn new(status: u16, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    /// The hub hides whether a repository exists from callers without a token: 401 instead of 404.
    pub(crate) fn repo_not_found(anonymous: bool) -> Self {
        if anonymous {
            Self::new(401, Some("RepoNotFound"), "Invalid username or password.")
        } else {
            Self::new(404, Some("RepoNotFound"), "Repository not found")
        }
    }

    pub(crate) fn revision_not_found(revision: &str) -> Self {
        Self::new(
            404,
            Some("RevisionNotFound"),
            format!("Invalid rev id: {revision}"),
        )
    }

    pub(crate) fn entry_not_found() -> Self {
        Self::new(404, Some("EntryNotFound"), "Entry not found")
    }

    pub(crate) fn gated(repo: &str, status: u16) -> Self {
        let message = format!(
            "Access to model {repo} is restricted. You must have access to it and be authenticated."
        );
        Self::new(status, Some("GatedRepo"), message)
    }

    pub(crate) fn bad_token() -> Self {
        Self::new(401, None, "Invalid credentials in Authorization header")
    }

    pub(crate) fn expired() -> Self {
        Self::new(403, None, "AccessDenied: Request has expired")
    }

    pub(crate) fn two_authentications() -> Self {
        Self::new(
            400,
            None,
            "InvalidArgument: Only one auth mechanism allowed",
        )
    }

    pub(crate) fn range(size: u64) -> Self {
        let mut refusal = Self::new(416, None, "Requested range not satisfiable");
        refusal
            .headers
            .push(("content-range", format!("bytes */{size}")));
        refusal
    }

    pub(crate) fn internal(error: &std::io::Error) -> Self {
        Self::new(500, None, error.to_string())
    }

    /// The response to an injected status, if the fault is one.
    pub(crate) fn injected(fault: &Fault) -> Option<Self> {
        let Fault::Status {
            code,
            retry_after,
            rate_limit,
        } = fault
        else {
            return None;
        };
        let mut refusal = Self::new(*code, None, format!("injected status {code}"));
        if let Some(seconds) = retry_after {
            refusal.headers.push(("retry-after", seconds.to_string()));
        }
        if let Some(seconds) = rate_limit {
            refusal
                .headers
                .push(("ratelimit", format!("\"resolvers\";r=0;t={seconds}")));
            refusal.headers.push((
                "ratelimit-policy",
                "\"fixed window\";\"resolvers\";q=3000;w=300".into(),
            ));
        }
        Some(refusal)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(json!({ "error": self.message }))).into_response();
        let headers = response.headers_mut();
        let mut set = |name: &'static str, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        set("x-error-message", &self.message);
        if let Some(code) = self.code {
            set("x-error-code", code);
        }
        for (name, value) in &self.headers {
            set(name, value);
        }
        response
    }
}
