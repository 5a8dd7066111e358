//! Reads a request's JSON within limits of size and time, and says where it is wrong. It must not
//! know what the JSON means.

use std::time::Duration;

use axum::{
    body::{Bytes, to_bytes},
    extract::Request,
    http::header,
};
use http_body_util::LengthLimitError;
use serde::de::DeserializeOwned;

use crate::error::ApiError;

/// Largest body: many times the text of the longest context.
pub(crate) const MAX_BYTES: usize = 4 << 20;
/// A body must arrive within this time, so that a client that trickles it cannot hold a connection.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the body. The content type is not looked at: curl's default is wrong and harmless.
pub(crate) async fn read(request: Request) -> Result<Bytes, ApiError> {
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > MAX_BYTES as u64) {
        return Err(ApiError::BodyTooLarge { limit: MAX_BYTES });
    }
    tokio::time::timeout(READ_TIMEOUT, to_bytes(request.into_body(), MAX_BYTES))
        .await
        .map_err(|_| ApiError::BodyTimeout {
            seconds: READ_TIMEOUT.as_secs(),
        })?
        .map_err(|error| match std::error::Error::source(&error) {
            Some(source) if source.is::<LengthLimitError>() => {
                ApiError::BodyTooLarge { limit: MAX_BYTES }
            }
            _ => ApiError::BodyBroken(error.to_string()),
        })
}

/// Tells broken JSON (where) from JSON of the wrong shape (which field, and where).
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let param = if path == "." { "body".to_owned() } else { path };
                ApiError::BadField {
                    param,
                    problem: inner.to_string(),
                }
            }
            _ => ApiError::MalformedJson(inner.to_string()),
        }
    })?;
    json.end()
        .map_err(|error| ApiError::MalformedJson(error.to_string()))?;
    Ok(value)
}
