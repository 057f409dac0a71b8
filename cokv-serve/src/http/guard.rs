//! Who is let in: by which name the server is called, with which key, from which page.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use cokv_scheduler::Refusal;

use super::notes::Notes;
use super::reply::ErrorCode;
use super::shared::{Caller, Shared};
use crate::api::error::ApiError;
use crate::random::drawn_id;
use crate::server::{RequestLine, Settings};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Addresses that want no key: whoever watches the server has none, and the page asks for it.
const OPEN: [&str; 2] = ["/health", "/"];

/// Notes every request, lets in whom it may, and says what became of it.
pub async fn guard(State(shared): State<Arc<Shared>>, mut request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let line = RequestLine {
        id: id.clone(),
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        ..RequestLine::default()
    };
    let notes = Notes::new(Arc::clone(&shared), line);
    let origin = allowed_origin(shared.settings(), request.headers());
    let mut response = match let_in(&shared, &request, origin.is_some()) {
        Err(error) => error.into_response(),
        Ok(Entrance::Preflight) => preflight(),
        Ok(Entrance::Caller(caller)) => {
            let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
            route.inspect(|route| notes.route(route));
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(notes.clone());
            next.run(request).await
        }
    };
    let error = response.extensions().get::<ErrorCode>().and_then(|code| code.0);
    notes.answered(response.status().as_u16(), error);
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(origin) = origin {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

enum Entrance {
    Caller(Caller),
    Preflight,
}

fn let_in(shared: &Shared, request: &Request, from_listed_page: bool) -> Result<Entrance, ApiError> {
    let settings = shared.settings();
    if !is_own_host(host(request.uri(), request.headers()), &settings.hosts) {
        return Err(ApiError::host());
    }
    if request.method() == Method::OPTIONS && from_listed_page {
        return Ok(Entrance::Preflight);
    }
    let path = request.uri().path();
    let key = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = key.and_then(|value| value.split_once(' ')).filter(|(kind, _)| kind.eq_ignore_ascii_case("bearer"));
    let caller = match shared.caller(key.map(|(_, key)| key.trim())) {
        Some(caller) => caller,
        None if OPEN.contains(&path) => Caller::default(),
        None => return Err(ApiError::key()),
    };
    if shared.is_draining() && path != "/health" && path != "/metrics" {
        return Err(Refusal::Draining.into());
    }
    Ok(Entrance::Caller(caller))
}

/// The client's own id, where it is one that a log can hold.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    let fits = |id: &&str| (1..=128).contains(&id.len()) && id.chars().all(|letter| letter.is_ascii_graphic());
    given.filter(fits).map_or_else(|| drawn_id("req-"), str::to_owned)
}

fn allowed_origin(settings: &Settings, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    settings.cors_origins.iter().any(|listed| listed.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-request-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

/// The name that the client called.
fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let named = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(|authority| authority.as_str()).or(named)
}

/// Whether a name is this machine's loopback or listed: a page that lets its own name lead here calls another.
fn is_own_host(host: Option<&str>, listed: &[String]) -> bool {
    if listed.iter().any(|name| name == "*") {
        return true;
    }
    let Some(host) = host else { return false };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let loopback =
        name.parse::<IpAddr>().map_or(name.eq_ignore_ascii_case("localhost"), |address| address.is_loopback());
    loopback || listed.iter().any(|listed| listed.eq_ignore_ascii_case(name) || listed.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_loopback_or_listed() {
        let listed = ["models.example".to_owned(), "other:8000".to_owned()];
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:80",
            "[::1]",
            "models.example:443",
            "other:8000",
        ] {
            assert!(is_own_host(Some(host), &listed), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "other:1", "", "[::2]"]
        {
            assert!(!is_own_host(Some(host), &listed), "{host}");
        }
        assert!(!is_own_host(None, &listed));
        assert!(is_own_host(Some("any"), &["*".into()]) && is_own_host(None, &["*".into()]));
    }

    #[test]
    fn ids_that_a_log_can_hold_are_kept() {
        let id = |text: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(text).unwrap());
            request_id(&headers)
        };
        assert_eq!(id(b"abc-1"), "abc-1");
        for other in [&b"a b"[..], b"", b"\xff", &[b'x'; 129]] {
            assert!(id(other).starts_with("req-"), "{other:?}");
        }
    }
}
