//! What can go wrong with a model.

use std::path::{Path, PathBuf};

use cokv_core::{LayoutError, PolicyError};
use thiserror::Error;

use crate::sampling::{ConstraintError, NoTokenLeft};
use crate::source::SourceError;

/// Why a model could not be loaded or run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelError {
    /// The model could not be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A file could not be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// The decoder cannot compute this model.
    #[error("{}: {message}", path.display())]
    Unsupported {
        /// The file that asks for it.
        path: PathBuf,
        /// What is asked for, and what is known.
        message: String,
    },
    /// Head counts that no attention layer can have.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// More tokens than the model was made for.
    #[error(
        "{tokens} tokens are more than the {limit} that this model can attend to{reason}; shorten the prompt (in a benchmark: max_prompt_tokens) or generate fewer tokens"
    )]
    TooLong {
        /// Tokens asked for, those to be generated included.
        tokens: usize,
        /// The model's limit.
        limit: usize,
        /// Where the limit comes from, if not from the context length.
        reason: &'static str,
    },
    /// No token may come next.
    #[error(transparent)]
    NoTokenLeft(#[from] NoTokenLeft),
    /// What an answer has to follow does not say how.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// No room behind a prompt to feed it again.
    #[error(
        "this method feeds the prompt a second time, piece by piece, behind the {tokens} tokens that are there: {more} more are more than \
         the {limit} that this model can attend to; shorten the prompt (in a benchmark: max_prompt_tokens)"
    )]
    NoRoomToReplay {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the smallest piece, and of what asks for it.
        more: usize,
        /// The model's limit.
        limit: usize,
    },
    /// A method needs a second pass over the prompt, and there was none.
    #[error("`{method}` looks at a second pass over the prompt, which is not possible here: {instead}")]
    NoReplay {
        /// The method.
        method: String,
        /// What to do.
        instead: &'static str,
    },
    /// Nothing to prefill.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id that the model has no embedding for.
    #[error("token {token} is outside the model's vocabulary of {vocabulary}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Rows of the embedding table.
        vocabulary: usize,
    },
    /// The model computed NaN or infinities.
    #[error("the model's logits are not finite {place}: its weights are damaged, or overflow in the chosen precision")]
    NotFinite {
        /// Where in the sequence.
        place: String,
    },
    /// A method failed on this prompt.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The tokenizer failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The chat template failed.
    #[error("chat template: {0}")]
    ChatTemplate(String),
    /// A sequence that will never fit.
    #[error(
        "this sequence needs {} MiB of cache and there are {} MiB for all of them together: shorten the prompt or the \
         answer, or lower the budget", needed >> 20, limit >> 20
    )]
    OutOfMemory {
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that there are.
        limit: u64,
    },
    /// A record cannot be made a prompt.
    #[error("{0}")]
    Prompt(String),
    /// What computes failed.
    #[error("{0}")]
    Backend(String),
}

impl From<candle_core::Error> for ModelError {
    fn from(error: candle_core::Error) -> Self {
        ModelError::Backend(without_backtrace(error).to_string())
    }
}

/// candle prints a backtrace as part of its message where `RUST_BACKTRACE` is set.
pub(crate) fn without_backtrace(error: candle_core::Error) -> candle_core::Error {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(*inner),
        other => other,
    }
}

impl ModelError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |error| ModelError::Io { path, error }
    }

    pub(crate) fn malformed(path: &Path, message: impl ToString) -> Self {
        ModelError::Malformed { path: path.to_path_buf(), message: message.to_string() }
    }

    pub(crate) fn missing_tensor(path: &Path, name: &str) -> Self {
        Self::malformed(path, format!("tensor `{name}` is missing"))
    }

    pub(crate) fn unsupported(path: &Path, message: impl ToString) -> Self {
        ModelError::Unsupported { path: path.to_path_buf(), message: message.to_string() }
    }
}
