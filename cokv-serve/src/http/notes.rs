//! What is noted of a request while it is answered, and told once it is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use cokv_scheduler::Used;

use super::shared::Shared;
use crate::api::error::ApiError;
use crate::server::{Logged, RequestLine};

/// The line of a request: it is logged and counted when the last of those who write it is done.
#[derive(Clone)]
pub struct Notes(Arc<Written>);

struct Written {
    shared: Arc<Shared>,
    since: Instant,
    /// The address as it is routed, so that there are not as many as there are documents.
    endpoint: Mutex<String>,
    line: Mutex<RequestLine>,
}

/// Where the client went before there was a status.
const CLIENT_GONE: u16 = 499;

impl Notes {
    /// Of a request whose head is read.
    pub fn new(shared: Arc<Shared>, line: RequestLine) -> Self {
        let line = Mutex::new(RequestLine { status: CLIENT_GONE, ..line });
        Self(Arc::new(Written { shared, since: Instant::now(), endpoint: Mutex::new("other".into()), line }))
    }

    /// When its head was read.
    pub fn since(&self) -> Instant {
        self.0.since
    }

    /// Where it is routed.
    pub fn route(&self, endpoint: &str) {
        *self.0.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = endpoint.to_owned();
    }

    /// The head of its response.
    pub fn answered(&self, status: u16, error: Option<&'static str>) {
        self.write(|line| (line.status, line.error) = (status, error));
    }

    /// An error where the head is out already.
    pub fn failed(&self, error: &ApiError) {
        self.write(|line| line.error = error.code.or(Some(error.kind)));
    }

    /// What its prompts are.
    pub fn asked(&self, prompt_tokens: usize) {
        self.write(|line| line.prompt_tokens = prompt_tokens);
    }

    /// A token of an answer.
    pub fn token(&self) {
        self.write(|line| line.completion_tokens += 1);
    }

    /// What a job took.
    pub fn used(&self, used: &Used) {
        self.write(|line| {
            line.cached_tokens += used.cached_tokens;
            line.cache_bytes += used.cache.bytes;
            line.queued = line.queued.max(used.queued);
            line.reading = line.reading.max(used.reading);
            line.answering = line.answering.max(used.answering);
        });
    }

    fn write(&self, change: impl FnOnce(&mut RequestLine)) {
        change(&mut self.0.line.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        let taken = self.since.elapsed();
        let line = RequestLine { taken, ..self.line.lock().unwrap_or_else(PoisonError::into_inner).clone() };
        self.shared.metrics.count(&self.endpoint.lock().unwrap_or_else(PoisonError::into_inner), line.status);
        self.shared.metrics.request.observe(taken);
        (self.shared.server.log)(&Logged::Request(line));
    }
}
