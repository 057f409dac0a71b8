//! What all requests share.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cokv_models::ModelError;
use cokv_scheduler::{Handle, Namespace, Refusal, Reply};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::api::error::ApiError;
use crate::grammar::Grammars;
use crate::metrics::Metrics;
use crate::prompt::Prompts;
use crate::server::{Logged, Server, Settings};

/// What all requests share.
pub struct Shared {
    /// As it was handed in.
    pub server: Server,
    /// What is counted.
    pub metrics: Metrics,
    /// Makes prompts.
    pub prompts: Prompts,
    /// Makes what answers of a form have to follow.
    pub grammars: Grammars,
    draining: AtomicBool,
    /// SHA-256 of each key.
    keys: Vec<[u8; 32]>,
    /// Requests of each key that are being answered.
    of_keys: Mutex<HashMap<String, usize>>,
    /// Notices that were given.
    told: Mutex<BTreeSet<String>>,
}

/// Who asks: what is known of the key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller(pub String);

/// Counts a request of a key until it is dropped.
pub struct OfKey {
    shared: Arc<Shared>,
    caller: Caller,
}

impl Shared {
    /// Before anybody asks.
    ///
    /// # Errors
    /// Where the chat template fails at one user's message.
    pub fn new(server: Server) -> Result<Self, ModelError> {
        let grammars = Grammars::of(Arc::clone(&server.model.outline));
        let prompts = Prompts::of(Arc::clone(&server.model.outline), server.settings.template_compat)?;
        let keys = server.settings.keys.iter().map(|key| hash(key)).collect();
        Ok(Self {
            server,
            metrics: Metrics::default(),
            prompts,
            grammars,
            draining: AtomicBool::new(false),
            keys,
            of_keys: Mutex::default(),
            told: Mutex::default(),
        })
    }

    /// To the thread that computes.
    pub fn handle(&self) -> &Handle {
        &self.server.handle
    }

    /// Whom it answers, and how much.
    pub fn settings(&self) -> &Settings {
        &self.server.settings
    }

    /// From now on nobody new is answered.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.handle().drain();
    }

    /// Whether nobody new is answered.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Who holds a key; none where it is not known. Every key is compared to its end, whichever it is.
    pub fn caller(&self, key: Option<&str>) -> Option<Caller> {
        if self.keys.is_empty() {
            return Some(Caller::default());
        }
        let given = hash(key?);
        let known = self.keys.iter().fold(false, |known, key| known | same(key, &given));
        known.then(|| Caller(given.iter().take(16).map(|byte| format!("{byte:02x}")).collect()))
    }

    /// Who may use what is read for a caller.
    pub fn namespace(&self, caller: &Caller, salt: Option<&str>) -> Namespace {
        let key = if self.settings().share_cache { "" } else { &caller.0 };
        Namespace(format!("{key}/{}", salt.unwrap_or_default()))
    }

    /// Counts a caller's request.
    ///
    /// # Errors
    /// It has its share already.
    pub fn admit(self: &Arc<Self>, caller: &Caller) -> Result<OfKey, ApiError> {
        let mut of_keys = self.of_keys.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = of_keys.entry(caller.0.clone()).or_default();
        match self.settings().requests_per_key.filter(|&limit| *requests >= limit) {
            Some(limit) => Err(ApiError::of_key(limit, std::time::Duration::from_secs(1))),
            None => {
                *requests += 1;
                Ok(OfKey { shared: Arc::clone(self), caller: caller.clone() })
            }
        }
    }

    /// Whether anybody waits for an answer.
    pub fn is_busy(&self) -> bool {
        !self.of_keys.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Says something once.
    pub fn notice(&self, text: String) {
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(text.clone()) {
            (self.server.log)(&Logged::Notice(text));
        }
    }

    /// Asks the thread that computes, and waits for what it replies.
    ///
    /// # Errors
    /// It has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Handle, Reply<T>) -> Result<(), Refusal>,
    ) -> Result<T, ApiError> {
        let (sender, receiver) = oneshot::channel();
        // Whoever asked may have gone meanwhile.
        ask(self.handle(), Box::new(move |reply| drop(sender.send(reply)))).map_err(|_| self.ended())?;
        receiver.await.map_err(|_| self.ended().into())
    }

    /// Why the thread that computes does not answer.
    pub fn ended(&self) -> Refusal {
        match self.is_draining() {
            true => Refusal::Draining,
            false => Refusal::Internal("the thread that computes has ended".into()),
        }
    }
}

impl Drop for OfKey {
    fn drop(&mut self) {
        let mut of_keys = self.shared.of_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(requests) = of_keys.get_mut(&self.caller.0) {
            *requests -= 1;
            if *requests == 0 {
                of_keys.remove(&self.caller.0);
            }
        }
    }
}

/// Runs what takes long beside the connections.
///
/// # Errors
/// Its own, and where it panics.
pub async fn aside<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, ApiError>
where
    T: Send + 'static,
    E: Into<ApiError> + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(Into::into),
        Err(_) => Err(ApiError::internal("something failed that must not")),
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Compares to the end, so that nobody learns from the time how much of a hash is right.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differ, (one, other)| std::hint::black_box(differ | (one ^ other))) == 0
}
