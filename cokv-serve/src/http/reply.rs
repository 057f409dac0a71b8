//! Answers and errors in HTTP.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value as Json;

use crate::api::error::ApiError;

const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// JSON with a status.
pub fn json(status: StatusCode, json: &Json) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json")];
    (status, headers, Body::from(json.to_string())).into_response()
}

/// JSON, and all is well.
pub fn ok(answer: &Json) -> Response {
    json(StatusCode::OK, answer)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json(status, &self.body_json());
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.is_final() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        // Whoever writes the log reads it there.
        response.extensions_mut().insert(ErrorCode(self.code));
        response
    }
}

/// What went wrong with a response, for the log.
#[derive(Clone, Copy, Debug)]
pub struct ErrorCode(pub Option<&'static str>);
