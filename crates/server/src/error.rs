//! The only place where an error becomes an HTTP status and an OpenAI error body. It must not know
//! how the errors arise.

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Why a request was not served, in words for whoever sent it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the body is not valid JSON: {0}")]
    MalformedJson(String),
    #[error("{param}: {problem}")]
    BadField { param: String, problem: String },
    #[error("the model '{asked}' is not served here; known: {}", known.join(", "))]
    UnknownModel { asked: String, known: Vec<String> },
    #[error(
        "the prompt has {prompt} tokens, and this server holds {context} per request, prompt and answer \
         together: shorten the prompt or serve with a longer context"
    )]
    ContextTooLong { prompt: usize, context: u32 },
    #[error("{0}")]
    Conversation(String),
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge { limit: usize },
    #[error("the body did not arrive within {seconds} s")]
    BodyTimeout { seconds: u64 },
    #[error("the body could not be read: {0}")]
    BodyBroken(String),
    #[error("this server needs an API key: send 'Authorization: Bearer <key>'")]
    KeyMissing,
    #[error("the API key is not one of this server's")]
    KeyWrong,
    #[error("all slots and the queue are full; try again in {retry_after} s")]
    Busy { retry_after: u64 },
    #[error("Loading model: {loaded} of {total} bytes read")]
    Loading { loaded: u64, total: u64 },
    #[error("Draining: this server is about to end, connect again for another")]
    Draining,
    #[error("the engine has stopped; this server must be restarted")]
    EngineStopped,
    #[error("{0}")]
    Engine(String),
    #[error("no route {0}")]
    NoSuchRoute(String),
    #[error("{0} is not allowed here")]
    MethodNotAllowed(String),
}

impl ApiError {
    pub(crate) fn field(param: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::BadField {
            param: param.into(),
            problem: problem.into(),
        }
    }

    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::MalformedJson(_)
            | Self::BadField { .. }
            | Self::ContextTooLong { .. }
            | Self::Conversation(_)
            | Self::BodyBroken(_) => StatusCode::BAD_REQUEST,
            Self::KeyMissing | Self::KeyWrong => StatusCode::UNAUTHORIZED,
            Self::UnknownModel { .. } | Self::NoSuchRoute(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTimeout { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Engine(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Loading { .. } | Self::Draining | Self::EngineStopped => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        }
    }

    /// OpenAI's `type`, and its `code` where clients look at one.
    fn kind(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::UnknownModel { .. } => ("invalid_request_error", Some("model_not_found")),
            Self::ContextTooLong { .. } => {
                ("invalid_request_error", Some("context_length_exceeded"))
            }
            Self::KeyMissing | Self::KeyWrong => ("invalid_request_error", Some("invalid_api_key")),
            Self::Busy { .. } => ("rate_limit_error", Some("queue_full")),
            Self::Engine(_) => ("server_error", None),
            Self::Loading { .. } => ("unavailable_error", Some("loading")),
            Self::Draining => ("unavailable_error", Some("draining")),
            Self::EngineStopped => ("unavailable_error", Some("engine_stopped")),
            Self::MalformedJson(_)
            | Self::BadField { .. }
            | Self::Conversation(_)
            | Self::BodyTooLarge { .. }
            | Self::BodyTimeout { .. }
            | Self::BodyBroken(_)
            | Self::NoSuchRoute(_)
            | Self::MethodNotAllowed(_) => ("invalid_request_error", None),
        }
    }

    fn param(&self) -> Option<&str> {
        match self {
            Self::BadField { param, .. } => Some(param),
            Self::UnknownModel { .. } => Some("model"),
            _ => None,
        }
    }

    /// The JSON body, also sent as an event when a stream has already begun.
    pub(crate) fn body(&self) -> Body<'_> {
        let (kind, code) = self.kind();
        Body {
            error: Inner {
                message: self.to_string(),
                kind,
                param: self.param(),
                code,
            },
        }
    }
}

/// OpenAI's error object.
#[derive(Debug, Serialize)]
pub(crate) struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Debug, Serialize)]
struct Inner<'a> {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<&'a str>,
    code: Option<&'static str>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Busy { retry_after } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
            }
            Self::KeyMissing | Self::KeyWrong => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

pub(crate) async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    ApiError::NoSuchRoute(format!("{method} {}", uri.path()))
}

pub(crate) async fn method_not_allowed(method: Method, uri: Uri) -> ApiError {
    ApiError::MethodNotAllowed(format!("{method} {}", uri.path()))
}
