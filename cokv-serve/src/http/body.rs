//! Bodies of requests: JSON, not too large, not too slow.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::api::error::ApiError;

/// Within which a body is there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads a body to its end.
///
/// # Errors
/// It does not say that it is JSON, has too many bytes, or does not come.
pub async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::content_type());
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit as u64) {
        return Err(ApiError::body(limit));
    }
    let read = tokio::time::timeout(PATIENCE, Limited::new(body, limit).collect());
    match read.await {
        Ok(Ok(read)) => Ok(read.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(ApiError::body(limit)),
        Ok(Err(error)) => Err(ApiError::json(format!("the body ended early: {error}"))),
        Err(_) => Err(ApiError::slow(PATIENCE.as_secs())),
    }
}
