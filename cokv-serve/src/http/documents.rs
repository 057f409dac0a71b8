//! `/v1/cokv/documents`: texts that are read once and asked about by their names.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use cokv_core::Frame;
use cokv_scheduler::{Document, DocumentTold, Namespace, NewDocument, Refusal, Ticket};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::body;
use super::jobs::method;
use super::notes::Notes;
use super::reply::{json as reply, ok};
use super::shared::{Caller, Shared, aside};
use super::sse::{self, Events, Gone};
use crate::api::documents::{DocumentRequest, shown};
use crate::api::error::ApiError;
use crate::api::extension::Mode;
use crate::prompt::open;

/// What stands behind a `?`.
#[derive(Debug, Default, Deserialize)]
pub struct Salted {
    /// A namespace within that of the key.
    cache_salt: Option<String>,
}

/// Reads a document, and says how far it is to whoever wants a stream.
pub async fn create(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(notes): Extension<Notes>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let bytes = body::read(&headers, body, shared.settings().body).await?;
    let of_key = shared.admit(&caller)?;
    let of = Arc::clone(&shared);
    let (asked, opened) = aside(move || {
        let asked = DocumentRequest::read(&bytes)?;
        let opened = open(&of.prompts, &asked.content)?;
        Ok::<_, ApiError>((asked, opened))
    })
    .await?;
    let context = shared.server.model.outline.config().max_tokens();
    if opened.tokens.len() >= context {
        return Err(ApiError::too_long(opened.tokens.len(), 1, context).of("text"));
    }
    notes.asked(opened.tokens.len());
    let compress = asked.compress.as_ref().unwrap_or(&shared.settings().compress);
    let compress = match compress.mode {
        Mode::Document => Some(method(&shared, &compress.method, "compress")?),
        Mode::Off | Mode::Question => None,
    };
    let new = NewDocument {
        namespace: shared.namespace(&caller, asked.salt.as_deref()),
        shared: asked.shared,
        name: asked.id,
        tokens: opened.tokens,
        text: opened.text,
        compress,
        frame: Frame { head: opened.head, question: 0, tail: 0 },
        close: shared.prompts.close().to_vec(),
        pin: asked.pin,
        time_to_live: asked.time_to_live,
        hear: Box::new(|_| ()),
    };
    let mut reading = Reading::start(Arc::clone(&shared), new).await?;
    let streams = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if streams.is_some_and(|accept| accept.contains("text/event-stream")) {
        let (events, response) = sse::stream(shared.settings().silence, "queued");
        tokio::spawn(async move {
            let _of_key = of_key;
            reading.stream(events, notes).await
        });
        return Ok(response);
    }
    let (document, made) = loop {
        if let DocumentTold::Done { document, made } = reading.next().await? {
            break (document, made);
        }
    };
    let status = if made { StatusCode::CREATED } else { StatusCode::OK };
    Ok(reply(status, &shown(&document, true)))
}

/// All that the caller may use.
pub async fn list(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Query(Salted { cache_salt }): Query<Salted>,
) -> Result<Response, ApiError> {
    let namespace = shared.namespace(&caller, cache_salt.as_deref());
    let documents = shared.ask(|handle, reply| handle.list(namespace, reply)).await?;
    let data: Json = documents.iter().map(|document| shown(document, false)).collect();
    Ok(ok(&json!({ "object": "list", "data": data })))
}

/// One, with what each head keeps.
pub async fn show(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(Salted { cache_salt }): Query<Salted>,
) -> Result<Response, ApiError> {
    let namespace = shared.namespace(&caller, cache_salt.as_deref());
    Ok(ok(&shown(&find(&shared, namespace, &id).await?, true)))
}

/// Forgets one. Whoever reads it goes on.
pub async fn forget(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Query(Salted { cache_salt }): Query<Salted>,
) -> Result<Response, ApiError> {
    let namespace = shared.namespace(&caller, cache_salt.as_deref());
    let (of, name) = (namespace.clone(), id.clone());
    let forgotten = shared.ask(|handle, reply| handle.forget(of, name, reply)).await?;
    match forgotten {
        Some(_) => Ok(ok(&json!({ "id": id, "object": "cokv.document", "deleted": true }))),
        None => {
            find(&shared, namespace, &id).await?;
            Err(ApiError::not_ours(&id))
        }
    }
}

/// The document of a name.
pub async fn find(shared: &Shared, namespace: Namespace, id: &str) -> Result<Document, ApiError> {
    let name = id.to_owned();
    let found = shared.ask(|handle, reply| handle.find(namespace, name, reply)).await?;
    found.ok_or_else(|| ApiError::document(id))
}

/// A document on its way, which ends when this is dropped.
struct Reading {
    shared: Arc<Shared>,
    _ticket: Ticket,
    told: UnboundedReceiver<DocumentTold>,
}

impl Reading {
    /// Hands a document in, and waits until it is taken.
    async fn start(shared: Arc<Shared>, mut new: NewDocument) -> Result<Self, ApiError> {
        let (sender, told) = unbounded_channel();
        // Whoever listened may have gone.
        new.hear = Box::new(move |told| drop(sender.send(told)));
        let ticket = shared.handle().read(new).map_err(|_| shared.ended())?;
        let mut reading = Self { shared, _ticket: ticket, told };
        match reading.next().await? {
            DocumentTold::Queued => Ok(reading),
            other => Err(ApiError::internal(format!("a document was {other:?} before it was queued"))),
        }
    }

    async fn next(&mut self) -> Result<DocumentTold, ApiError> {
        match self.told.recv().await {
            Some(DocumentTold::Refused(refusal)) => Err(of_document(refusal)),
            Some(told) => Ok(told),
            None => Err(self.shared.ended().into()),
        }
    }

    async fn stream(&mut self, mut events: Events, notes: Notes) {
        let ended = loop {
            let told = match events.while_waiting(self.next(), "reading").await {
                Err(Gone) => return,
                Ok(Ok(DocumentTold::Queued)) => Ok(()),
                Ok(Ok(DocumentTold::Read { tokens, of })) => {
                    events.named("progress", &json!({ "tokens": tokens, "of": of })).await
                }
                Ok(Ok(DocumentTold::Done { document, made })) => {
                    let mut json = shown(&document, true);
                    json["made"] = made.into();
                    break events.named("done", &json).await;
                }
                Ok(Ok(DocumentTold::Refused(refusal))) => break events.data(&of_document(refusal).body_json()).await,
                Ok(Err(error)) => {
                    notes.failed(&error);
                    break events.data(&error.body_json()).await;
                }
            };
            if told.is_err() {
                return;
            }
        };
        if ended.is_ok() {
            let _ = events.done().await;
        }
    }
}

/// Fields of a document are no fields of a request's `cokv`.
fn of_document(refusal: Refusal) -> ApiError {
    let is_method = matches!(refusal, Refusal::Method(_));
    let error = ApiError::from(refusal);
    if is_method { error.of("compress") } else { error }
}
