//! What can go wrong with a document and the questions about it.

use cokv_core::Budget;
use cokv_models::ModelError;
use cokv_models::cache::file::CacheFileError;
use thiserror::Error;

/// Why a document is not compressed, or a question not answered.
#[derive(Debug, Error)]
pub enum DocumentError {
    /// A method that scores nothing before the question is known.
    #[error(
        "`{method}` scores tokens by a question, and a document is compressed before anybody asks one: take {instead}"
    )]
    NeedsQuestion {
        /// The method.
        method: String,
        /// Compressors that need none.
        instead: String,
    },
    /// A document that leaves no room for a question.
    #[error(
        "the document has {tokens} tokens with what the chat template puts before it, and this model can attend to {limit}, question \
         and answer included: shorten it"
    )]
    TooLong {
        /// Its tokens.
        tokens: usize,
        /// Those of the model.
        limit: usize,
    },
    /// A budget for nothing.
    #[error("at {0} no head keeps any token of the document: raise the budget")]
    NothingKept(Budget),
    /// A question that does not fit behind its document.
    #[error(
        "`{question}` has {tokens} tokens, its answer may have {answer}, and the document leaves {left} of the {limit} that this \
         model can attend to: {advice}"
    )]
    NoRoom {
        /// Its beginning.
        question: String,
        /// Its tokens, those of the chat template included.
        tokens: usize,
        /// Tokens of the answer at most.
        answer: usize,
        /// Tokens left behind the document.
        left: usize,
        /// Tokens that the model can attend to.
        limit: usize,
        /// What to do.
        advice: String,
    },
    /// A saved cache that cannot be used.
    #[error(transparent)]
    File(#[from] CacheFileError),
    /// The model, or what reads it, failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}
