//! What a server says of itself: models, health, metrics, what is in memory, the page.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use cokv_scheduler::{EntryState, Namespace};
use serde_json::{Value as Json, json};

use super::jobs::check_model;
use super::reply::{json as reply, ok};
use super::shared::{Caller, Shared};
use crate::api::documents::{by_layer, state};
use crate::api::error::ApiError;
use crate::page::PAGE;

/// `/v1/models`: there is one.
pub async fn models(State(shared): State<Arc<Shared>>) -> Response {
    ok(&json!({ "object": "list", "data": [model(&shared)] }))
}

/// `/v1/models/{id}`.
pub async fn one_model(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    check_model(&shared, &id)?;
    Ok(ok(&model(&shared)))
}

fn model(shared: &Shared) -> Json {
    let served = &shared.server.model;
    let (config, layout) = (served.outline.config(), served.outline.config().layout);
    json!({
        "id": served.id,
        "object": "model",
        "created": served.created,
        "owned_by": "cokv",
        "meta": {
            "context": config.max_tokens(),
            "layers": layout.layers,
            "kv_heads": layout.kv_heads,
            "head_dim": layout.head_dim,
            "bytes_per_token": served.bytes_per_token(),
            "fingerprint": served.fingerprint,
            "chat": served.outline.chat_template().is_some(),
            "saves_documents": shared.server.files.is_some(),
        },
    })
}

/// `/health`, which wants no key: whether requests are answered.
pub async fn health(State(shared): State<Arc<Shared>>) -> Response {
    if shared.is_draining() {
        return reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "draining" }));
    }
    // A thread that computes hears whatever it is asked, as long as it is there.
    match shared.handle().find(Namespace::default(), String::new(), Box::new(drop)) {
        Ok(()) => ok(&json!({ "status": "ok" })),
        Err(_) => reply(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "failed" })),
    }
}

/// `/metrics`, as Prometheus reads them.
pub async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.metrics.text(shared.handle().figures(), &shared.server.model.id);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

/// `/v1/cokv/status`: who runs and what is in memory; no texts.
pub async fn status(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, ApiError> {
    let namespace = shared.namespace(&caller, None);
    let now = shared.ask(|handle, reply| handle.show(namespace, reply)).await?;
    let figures = shared.handle().figures();
    let layout = shared.server.model.outline.config().layout;
    let entries = now.entries.iter().map(|entry| shown(entry, layout.kv_heads));
    let status = json!({
        "model": shared.server.model.id,
        "state": if shared.is_draining() { "draining" } else { "ok" },
        "waiting": now.waiting,
        "running": now.running,
        "rows": figures.rows.get(),
        "layers": layout.layers,
        "kv_heads": layout.kv_heads,
        "bytes": {
            "limit": now.limit,
            "promised": now.promised,
            "held": now.held,
            "documents": figures.document_bytes.get(),
            "entries": figures.entry_bytes.get(),
            "ledger_error": figures.ledger_error_bytes.get(),
        },
        "tokens": {
            "prompt_computed": figures.prompt_tokens_computed.get(),
            "prompt_cached": figures.prompt_tokens_cached.get(),
            "generated": figures.generated_tokens.get(),
        },
        "entries": entries.collect::<Json>(),
    });
    Ok(ok(&status))
}

fn shown(entry: &EntryState, kv_heads: usize) -> Json {
    json!({
        "document": entry.document,
        "tokens": entry.tokens,
        "kept_tokens": entry.kept_tokens,
        "bytes": entry.bytes,
        "pinned": entry.pinned,
        "state": state(entry.compressed),
        "hits": entry.hits,
        "idle_seconds": entry.idle_seconds,
        "kept_by_head": by_layer(&entry.kept_by_head, kv_heads),
    })
}

/// `/openapi.json`: all of it, for programs.
pub async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../api/openapi.json")).into_response()
}

/// `/`: a page to chat with.
pub async fn page() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-cache"),
        // Nothing but this page's own, whatever a model writes.
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE.as_str()).into_response()
}
