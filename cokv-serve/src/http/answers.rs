//! `/v1/chat/completions` and `/v1/completions`.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use cokv_models::sampling::Sampling;
use cokv_scheduler::Job;

use super::body;
use super::generate::Request;
use super::jobs::{Common, answer, check_model, documents, is_framed, notice_meaningless};
use super::notes::Notes;
use super::shared::{Caller, OfKey, Shared, aside};
use crate::api::answer::{Head, Style};
use crate::api::chat::ChatRequest;
use crate::api::completions::CompletionRequest;
use crate::api::error::ApiError;
use crate::api::form::Form;
use crate::api::wanted::Wanted;
use crate::prompt::{Prepared, prepare};
use crate::random::{drawn_id, random};
use crate::server::Served;

/// Answers to a conversation.
pub async fn chat(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(notes): Extension<Notes>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (of_key, asked) = read(&shared, &caller, &headers, body, ChatRequest::read).await?;
    check_model(&shared, &asked.model)?;
    notice_meaningless(&shared, &asked.wanted);
    let constraint = shared.grammars.constraint(asked.form.clone()).await?;
    let namespace = shared.namespace(&caller, asked.salt.as_deref());
    let (named, known) = documents(&shared, &namespace, &asked.cache).await?;
    let (of, conversation) = (Arc::clone(&shared), asked.conversation.clone());
    let framed = is_framed(&shared, &asked.cache);
    let prepared = aside(move || prepare(&of.prompts, &conversation, named.as_ref(), &known, framed)).await?;
    let ChatRequest { wanted, cache, only_breakpoints, .. } = asked;
    let prompt_tokens = prepared.tokens.len();
    let common = Common { shared: &shared, namespace, wanted: &wanted, cache: &cache, only_breakpoints };
    let job = Job { constraint, ..common.job(prepared)? };
    let wanted_calls = matches!(asked.form, Form::Calls { .. });
    let calls = if asked.calls_tools { shared.prompts.calls(wanted_calls) } else { None };
    let head = head(&shared, Style::Chat);
    let request = request(shared, notes, of_key, head, &wanted, prompt_tokens);
    answer(Request { calls, ..request }, vec![job], wanted.stream).await
}

/// What follows some texts.
pub async fn completions(
    State(shared): State<Arc<Shared>>,
    Extension(caller): Extension<Caller>,
    Extension(notes): Extension<Notes>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (of_key, asked) = read(&shared, &caller, &headers, body, CompletionRequest::read).await?;
    check_model(&shared, &asked.model)?;
    notice_meaningless(&shared, &asked.wanted);
    let CompletionRequest { prompts, wanted, cache, salt, .. } = asked;
    let namespace = shared.namespace(&caller, salt.as_deref());
    let of = Arc::clone(&shared);
    let read = move || prompts.iter().map(|prompt| of.prompts.text(prompt)).collect::<Result<Vec<_>, ApiError>>();
    let prompts = aside(read).await?;
    let prompt_tokens = prompts.iter().map(Vec::len).sum();
    let common = Common { shared: &shared, namespace, wanted: &wanted, cache: &cache, only_breakpoints: false };
    let job = |tokens| common.job(Prepared { tokens, document: cache.document.clone(), ..Prepared::default() });
    let jobs = prompts.into_iter().map(job).collect::<Result<Vec<_>, _>>()?;
    let head = head(&shared, Style::Text);
    answer(request(shared, notes, of_key, head, &wanted, prompt_tokens), jobs, wanted.stream).await
}

/// What is asked, and its place among the requests of its key.
async fn read<R: Send + 'static>(
    shared: &Arc<Shared>,
    caller: &Caller,
    headers: &HeaderMap,
    body: Body,
    read: fn(&[u8], &Sampling, u64) -> Result<R, ApiError>,
) -> Result<(OfKey, R), ApiError> {
    let bytes = body::read(headers, body, shared.settings().body).await?;
    let of_key = shared.admit(caller)?;
    let Served { sampling, seed, .. } = &shared.server.model;
    let (defaults, seed) = (sampling.clone(), seed.unwrap_or_else(drawn_seed));
    let asked = aside(move || read(&bytes, &defaults, seed)).await?;
    Ok((of_key, asked))
}

fn request(
    shared: Arc<Shared>,
    notes: Notes,
    of_key: OfKey,
    head: Head,
    wanted: &Wanted,
    prompt_tokens: usize,
) -> Request {
    Request {
        shared,
        notes,
        head,
        choices: wanted.choices,
        stops: wanted.stop.clone(),
        calls: None,
        logprobs: wanted.sampling.top_logprobs.is_some(),
        include_usage: wanted.include_usage,
        prompt_tokens,
        seed: wanted.sampling.seed,
        _of_key: of_key,
    }
}

fn head(shared: &Shared, style: Style) -> Head {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let served = &shared.server.model;
    Head {
        id: drawn_id(if style == Style::Chat { "chatcmpl-" } else { "cmpl-" }),
        created: now.as_secs(),
        model: served.id.clone(),
        fingerprint: served.fingerprint.clone(),
        style,
    }
}

/// A seed for whoever sends none: every language's numbers can hold it.
fn drawn_seed() -> u64 {
    random() >> 11
}
