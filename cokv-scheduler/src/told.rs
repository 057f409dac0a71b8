//! What a job or a document's maker is told.

use std::sync::Arc;
use std::time::Duration;

use cokv_core::{Budget, Method};
use cokv_models::batch::Why;
use cokv_models::cache::Segment;
use cokv_models::sampling::TokenLogprobs;
use cokv_models::scores_fingerprint;

use crate::refusal::Refusal;

/// What becomes of a job. Its first event is `Queued` or `Refused`, its last `Done` or `Refused`.
#[derive(Debug)]
pub enum Told {
    /// It will be run; so many wait before it.
    Queued {
        /// Jobs.
        before: usize,
    },
    /// Of its prompt's tokens so many are read.
    Read {
        /// Done, those that were read before it included.
        tokens: usize,
        /// Of how many.
        of: usize,
    },
    /// The next token of an answer.
    Token {
        /// Which answer.
        choice: usize,
        /// The token.
        token: u32,
        /// How likely it and others were, where the job wants to know.
        logprobs: Option<TokenLogprobs>,
    },
    /// An answer is complete.
    Ended {
        /// Which.
        choice: usize,
        /// Why.
        why: Why,
    },
    /// All answers are.
    Done(Used),
    /// There is no answer, or none any more.
    Refused(Refusal),
}

/// What a job took.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Used {
    /// Of the prompt's tokens, those that nobody had to compute for this job.
    pub cached_tokens: usize,
    /// Of the prompt's tokens, those that later jobs can use now.
    pub written_tokens: usize,
    /// In the queue.
    pub queued: Duration,
    /// From there to the first token.
    pub reading: Duration,
    /// From there to the last.
    pub answering: Duration,
    /// What it was answered from.
    pub cache: UsedCache,
}

/// What a job was answered from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct UsedCache {
    /// Whether anything was left out of it.
    pub compressed: bool,
    /// The document, by its name.
    pub document: Option<String>,
    /// What chose, by its name.
    pub method: Option<String>,
    /// Of the prompt's tokens, averaged over all heads, the share that was kept.
    pub kept_share: f64,
    /// Of all its keys and values when the first token was chosen, those that it shares included.
    pub bytes: usize,
}

/// What becomes of a document. Its first event is `Queued` or `Refused`, its last `Done` or `Refused`.
#[derive(Debug)]
pub enum DocumentTold {
    /// It will be read.
    Queued,
    /// Of the tokens to be read, those of a second pass included, so many are.
    Read {
        /// Done.
        tokens: usize,
        /// Of how many.
        of: usize,
    },
    /// It is there.
    Done {
        /// What it is now.
        document: Document,
        /// Whether anything had to be done for it.
        made: bool,
    },
    /// It is not.
    Refused(Refusal),
}

/// A document that is there.
#[derive(Clone, Debug)]
pub struct Document {
    /// By which jobs name it.
    pub name: String,
    /// Whether every namespace may use it.
    pub shared: bool,
    /// All its tokens, kept or not.
    pub tokens: Arc<Vec<u32>>,
    /// As it was handed in.
    pub text: Arc<String>,
    /// What chose, with all settings, and how much it was allowed to keep; none where everything is kept.
    pub made_by: Option<MadeBy>,
    /// Whether it stays whatever else wants memory.
    pub pinned: bool,
    /// How long it stays after its last use.
    pub time_to_live: Option<Duration>,
    /// Jobs that used it.
    pub hits: u64,
    /// Its keys and values.
    pub cache: Arc<Segment>,
}

/// What made a compressed cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeBy {
    /// The method's name.
    pub method: String,
    /// All its settings.
    pub settings: String,
    /// What it was allowed to keep.
    pub budget: String,
    /// SHA-256 of the head scores that it went by.
    pub head_scores: Option<String>,
}

impl MadeBy {
    /// A method with a budget.
    pub fn of(method: &Method, budget: Budget) -> Self {
        Self {
            method: method.name().into(),
            settings: method.settings().to_string(),
            budget: budget.to_string(),
            head_scores: method.head_scores().map(scores_fingerprint),
        }
    }
}

impl Document {
    /// Of its tokens, averaged over all heads, those that are kept.
    pub fn kept_tokens(&self) -> f64 {
        self.cache.total_tokens() as f64 / self.cache.layout().heads() as f64
    }
}
