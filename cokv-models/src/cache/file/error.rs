//! What can be wrong with a saved cache.

use thiserror::Error;

use super::identity::Difference;
use crate::error::ModelError;

/// Why a saved cache cannot be used.
#[derive(Debug, Error)]
pub enum CacheFileError {
    /// The system could not read it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Another kind of file.
    #[error("this is no cache that cokv saved: {0}")]
    Foreign(String),
    /// Written by another cokv.
    #[error(
        "the cache has version {found} of the format, and this cokv reads version {known}: take the cokv that saved it, or compress the document again"
    )]
    Version {
        /// As the file says it.
        found: String,
        /// What can be read.
        known: &'static str,
    },
    /// Not as it was written.
    #[error("the cache is damaged: {0}; compress the document again")]
    Damaged(String),
    /// Keys and values that mean nothing here.
    #[error("the cache of {model} does not fit here: {}; {advice}", listed(differences))]
    Differs {
        /// The model that made it, as users write it.
        model: String,
        /// All that differs.
        differences: Vec<Difference>,
        /// What to do.
        advice: &'static str,
    },
    /// No memory for it, or the model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
}

fn listed(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<_>>().join(", ")
}
