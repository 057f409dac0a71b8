//! `/tokenize`, `/detokenize` and `/apply-template`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::{Value as Json, json};

use super::body;
use super::reply::ok;
use super::shared::{Shared, aside};
use crate::api::chat::Conversed;
use crate::api::error::ApiError;
use crate::api::fields::Fields;
use crate::api::texts::{Tokenize, detokenize as tokens_of};
use crate::prompt::Mark;

/// A text's tokens.
pub async fn tokenize(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    answered(shared, &headers, body, |shared, bytes| {
        let asked = Tokenize::read(bytes)?;
        let tokens = shared.prompts.encode(&asked)?;
        let pieces = asked.with_pieces.then(|| shared.server.model.outline.tokenizer().pieces(&tokens)).transpose()?;
        Ok(match pieces {
            Some(pieces) => {
                let pairs = tokens.iter().zip(&pieces).map(|(id, piece)| json!({ "id": id, "piece": piece }));
                json!({ "tokens": pairs.collect::<Json>() })
            }
            None => json!({ "tokens": tokens }),
        })
    })
    .await
}

/// The text of tokens.
pub async fn detokenize(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answered(shared, &headers, body, |shared, bytes| {
        let tokens = tokens_of(bytes)?;
        let outline = &shared.server.model.outline;
        let vocabulary = outline.config().vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(ApiError::value("tokens", format!("there is no token {token}: the model has {vocabulary}")));
        }
        Ok(json!({ "content": outline.tokenizer().decode(&tokens, false)? }))
    })
    .await
}

/// A conversation as the model reads it.
pub async fn apply_template(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    answered(shared, &headers, body, |shared, bytes| {
        let conversation = Conversed::take(&mut Fields::read(bytes)?)?;
        let messages = conversation.messages.iter().enumerate();
        let marks =
            messages.flat_map(|(message, said)| said.breakpoints.iter().map(move |&byte| Mark { message, byte }));
        let prompt = shared.prompts.conversation(&conversation, &marks.collect::<Vec<_>>())?;
        Ok(json!({ "prompt": prompt.text, "tokens": prompt.tokens, "breakpoints": prompt.marks }))
    })
    .await
}

/// What a request's body is answered with, found out aside.
async fn answered(
    shared: Arc<Shared>,
    headers: &HeaderMap,
    body: Body,
    answer: impl FnOnce(&Shared, &[u8]) -> Result<Json, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let bytes = body::read(headers, body, shared.settings().body).await?;
    Ok(ok(&aside(move || answer(&shared, &bytes)).await?))
}
