//! From a request that was read to the jobs that the scheduler runs.

use std::sync::Arc;

use axum::response::Response;
use cokv_core::{Budget, Frame, Method};
use cokv_models::StopRule;
use cokv_scheduler::{Compression, Document, Job, Namespace};
use serde_json::{Map, Value as Json};

use super::generate::{Generation, Request};
use super::reply::ok;
use super::running::Running;
use super::shared::Shared;
use super::sse;
use crate::api::error::ApiError;
use crate::api::extension::{Extension, Mode};
use crate::api::wanted::Wanted;
use crate::prompt::Prepared;

/// What all jobs of a request have in common.
pub struct Common<'a> {
    /// What all requests share.
    pub shared: &'a Shared,
    /// Whose they are.
    pub namespace: Namespace,
    /// What the answers are to be.
    pub wanted: &'a Wanted,
    /// What the request says of caches.
    pub cache: &'a Extension,
    /// Whether only what stands before a breakpoint is kept for later.
    pub only_breakpoints: bool,
}

impl Common<'_> {
    /// The job of a prompt.
    ///
    /// # Errors
    /// Its answer cannot be as long as it may become, its tokens not be chosen so, or not be compressed so.
    pub fn job(&self, prepared: Prepared) -> Result<Job, ApiError> {
        let Self { shared, wanted, cache, .. } = self;
        let outline = &shared.server.model.outline;
        wanted.sampling.check(outline.config().vocabulary)?;
        let max_new_tokens = self.max_tokens(prepared.tokens.len(), outline.config().max_tokens())?;
        // Stop tokens that end nothing are barred all the way.
        let min_new_tokens = if wanted.ignore_eos { max_new_tokens } else { wanted.min_tokens };
        let store = cache.store.unwrap_or(true) && (!self.only_breakpoints || prepared.breakpoint.is_some());
        Ok(Job {
            namespace: self.namespace.clone(),
            compression: self.compression(&prepared)?,
            tokens: prepared.tokens,
            document: prepared.document,
            exact: cache.exact,
            store,
            choices: wanted.choices,
            sampling: wanted.sampling.clone(),
            constraint: None,
            stop: StopRule { tokens: outline.stop_tokens().to_vec(), max_new_tokens, min_new_tokens },
            deadline: shared.settings().timeout,
            hear: Box::new(|_| ()),
        })
    }

    /// Nothing is cut: an answer that may not fit is refused.
    fn max_tokens(&self, prompt: usize, context: usize) -> Result<usize, ApiError> {
        let room = context.saturating_sub(prompt);
        let most = self.wanted.max_tokens.unwrap_or(room.min(self.shared.settings().max_tokens)).max(1);
        if most > room {
            return Err(ApiError::too_long(prompt, most, context));
        }
        match most >= self.wanted.min_tokens {
            true => Ok(most),
            false => Err(ApiError::value("min_tokens", format!("the answer may have {most} tokens"))),
        }
    }

    fn compression(&self, prepared: &Prepared) -> Result<Compression, ApiError> {
        let asked = self.cache.compress.as_ref();
        if self.cache.exact {
            return match asked.is_some_and(|compress| compress.mode != Mode::Off) {
                true => {
                    Err(ApiError::value("cokv.exact", "an answer is exact, or its prompt is compressed, but not both"))
                }
                false => Ok(Compression::Off),
            };
        }
        if self.cache.document.is_some() && asked.is_some() {
            let message = "a document's cache is as it was made: leave `compress` or `document` out";
            return Err(ApiError::value("cokv.compress", message));
        }
        let compress = asked.unwrap_or(&self.shared.settings().compress);
        let frame = prepared.frame;
        match compress.mode {
            Mode::Off => Ok(Compression::Off),
            // What a document keeps was chosen when it was read.
            Mode::Question | Mode::Document if prepared.document.is_some() => Ok(Compression::Off),
            Mode::Question => {
                let (method, budget) = method(self.shared, &compress.method, "cokv.compress")?;
                Ok(Compression::Question { method, budget, frame })
            }
            Mode::Document => match prepared.breakpoint {
                Some(tokens) => {
                    let (method, budget) = method(self.shared, &compress.method, "cokv.compress")?;
                    let frame = Frame { head: frame.head, question: 0, tail: 0 };
                    let close = self.shared.prompts.close().to_vec();
                    Ok(Compression::Document { method, budget, tokens, frame, close })
                }
                None if asked.is_none() => Ok(Compression::Off),
                None => {
                    let message = "nothing says where the document ends: set `prompt_cache_breakpoint` on a part of a message, or \
                                   name a `document`";
                    Err(ApiError::value("cokv.compress", message))
                }
            },
        }
    }
}

/// Whether it matters where the parts of a prompt lie.
pub fn is_framed(shared: &Shared, cache: &Extension) -> bool {
    let compress = cache.compress.as_ref().unwrap_or(&shared.settings().compress);
    compress.mode != Mode::Off && !cache.exact
}

/// A method as a request says it, for this model.
pub fn method(shared: &Shared, said: &Map<String, Json>, param: &str) -> Result<(Method, Budget), ApiError> {
    let (method, budget) = (shared.server.methods)(said).map_err(|error| ApiError::value(param, error))?;
    let layout = shared.server.model.outline.config().layout;
    method.check(layout).map_err(|error| ApiError::value(param, error.to_string()))?;
    Ok((method, budget))
}

/// Refuses a model that is not served.
pub fn check_model(shared: &Shared, wanted: &str) -> Result<(), ApiError> {
    let served = &shared.server.model;
    let is_served = wanted == served.id || served.aliases.iter().any(|alias| alias == wanted);
    match is_served || shared.settings().any_model {
        true => Ok(()),
        false => Err(ApiError::model(wanted, &served.id)),
    }
}

/// The document that a request names, or those that it may begin with.
pub async fn documents(
    shared: &Shared,
    namespace: &Namespace,
    cache: &Extension,
) -> Result<(Option<Document>, Vec<Document>), ApiError> {
    if let Some(name) = &cache.document {
        let (of, wanted) = (namespace.clone(), name.clone());
        let found = shared.ask(|handle, reply| handle.find(of, wanted, reply)).await?;
        return found.map(|found| (Some(found), Vec::new())).ok_or_else(|| ApiError::document(name));
    }
    if shared.handle().figures().documents.get() == 0 {
        return Ok((None, Vec::new()));
    }
    let of = namespace.clone();
    let mut known = shared.ask(|handle, reply| handle.list(of, reply)).await?;
    // What something was left out of is for those who want documents compressed.
    let mode = cache.compress.as_ref().unwrap_or(&shared.settings().compress).mode;
    let compressed = mode == Mode::Document && !cache.exact;
    known.retain(|document| compressed || document.made_by.is_none());
    Ok((None, known))
}

/// Says once what a request's fields do not change.
pub fn notice_meaningless(shared: &Shared, wanted: &Wanted) {
    for field in &wanted.meaningless {
        shared.notice(format!("requests say `{field}`, which means nothing here and changes nothing"));
    }
}

/// Hands jobs in, and answers once they are taken.
pub async fn answer(request: Request, jobs: Vec<Job>, stream: bool) -> Result<Response, ApiError> {
    let (shared, count) = (Arc::clone(&request.shared), jobs.len());
    request.notes.asked(request.prompt_tokens);
    let running = Running::start(Arc::clone(&shared), jobs).await?;
    let generation = Generation::new(request, running, count);
    if !stream {
        return Ok(ok(&generation.whole().await?));
    }
    let (events, response) = sse::stream(shared.settings().silence, "queued");
    tokio::spawn(generation.stream(events));
    Ok(response)
}
