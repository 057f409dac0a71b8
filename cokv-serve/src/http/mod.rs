//! Addresses and what stands behind them.

mod answers;
mod body;
mod documents;
mod facts;
mod files;
mod generate;
mod guard;
mod jobs;
mod notes;
mod reply;
mod running;
mod shared;
mod sse;
mod texts;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

pub use self::shared::Shared;
use crate::api::error::ApiError;

/// All addresses; each of OpenAI's is there without `/v1`, too.
pub fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(facts::page))
        .route("/health", get(facts::health))
        .route("/openapi.json", get(facts::openapi))
        .route("/metrics", get(facts::metrics))
        .route("/tokenize", post(texts::tokenize))
        .route("/detokenize", post(texts::detokenize))
        .route("/apply-template", post(texts::apply_template))
        .merge(versioned())
        .nest("/v1", versioned())
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .layer(from_fn_with_state(Arc::clone(&shared), guard::guard))
        .with_state(shared)
}

fn versioned() -> Router<Arc<Shared>> {
    Router::new()
        .route("/chat/completions", post(answers::chat))
        .route("/completions", post(answers::completions))
        .route("/models", get(facts::models))
        // Ids of models have slashes.
        .route("/models/{*id}", get(facts::one_model))
        .route("/cokv/status", get(facts::status))
        .route("/cokv/documents", get(documents::list).post(documents::create))
        .route("/cokv/documents/load", post(files::load))
        .route("/cokv/documents/{id}", get(documents::show).delete(documents::forget))
        .route("/cokv/documents/{id}/save", post(files::save))
}

async fn nowhere(request: Request) -> ApiError {
    ApiError::address(request.uri().path())
}

async fn other_method() -> ApiError {
    ApiError::method()
}
