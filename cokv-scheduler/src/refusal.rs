//! Why something is not done.

use std::time::Duration;

use cokv_models::sampling::{ConstraintError, SamplingError};
use thiserror::Error;

/// Why a job or a document is refused, or ends before its time.
#[derive(Clone, Debug, Error, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// A prompt with its answer is longer than what the model can attend to.
    #[error(
        "the prompt has {prompt_tokens} tokens and its answer may have {max_tokens}: more than the {context} that this model can attend to. \
         Nothing is cut: shorten the prompt or ask for a shorter answer"
    )]
    TooLong {
        /// Of the prompt.
        prompt_tokens: usize,
        /// Of the answer at most.
        max_tokens: usize,
        /// Of the model.
        context: usize,
    },
    /// More memory than all caches together may ever have.
    #[error("this needs {needed} bytes of cache and all caches together may have {limit}: {advice}")]
    NeverFits {
        /// Bytes.
        needed: u64,
        /// Bytes.
        limit: u64,
        /// What would help.
        advice: &'static str,
    },
    /// Memory that others hold now.
    #[error("there is no memory for its {0} bytes now; try again when fewer requests run")]
    NoRoomNow(u64),
    /// Too many wait.
    #[error("{waiting} requests are waiting already; try again in about {} s", retry_after.as_secs())]
    QueueFull {
        /// Jobs.
        waiting: usize,
        /// When it may be otherwise.
        retry_after: Duration,
    },
    /// Pinned documents have their share.
    #[error(
        "pinned documents may have {limit} bytes, and with this one they would have {needed}: forget one, or do not pin it"
    )]
    PinLimit {
        /// Bytes.
        needed: u64,
        /// Bytes.
        limit: u64,
    },
    /// A choice of tokens that cannot be made.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A method that cannot do what is wanted of it.
    #[error("{0}")]
    Method(String),
    /// An exact answer is wanted and only a compressed cache is there.
    #[error(
        "document `{0}` is compressed, and an exact answer is wanted: leave `exact` out, or send the document's text"
    )]
    Compressed(String),
    /// No such document.
    #[error("there is no document `{0}`")]
    NoDocument(String),
    /// Another document has that name.
    #[error("there is another document `{0}`: forget it first, or take another name")]
    DocumentExists(String),
    /// The prompt does not begin with the document.
    #[error(
        "the prompt does not begin with the {tokens} tokens of document `{name}`: it was made with another template or other settings"
    )]
    Mismatch {
        /// The document.
        name: String,
        /// It has so many.
        tokens: usize,
    },
    /// It took longer than it was given.
    #[error("the request took longer than the {} s that it was given", .0.as_secs())]
    Deadline(Duration),
    /// Nobody is served any more.
    #[error("the server is shutting down")]
    Draining,
    /// What an answer has to follow does not say how.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// The model gave numbers that are none.
    #[error("the model's numbers are not finite {0}")]
    NotFinite(String),
    /// The computation failed.
    #[error("the computation failed: {0}")]
    Internal(String),
}
