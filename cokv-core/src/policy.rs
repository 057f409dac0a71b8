//! The two seams that a compression method is made of.

use std::fmt::Debug;

use thiserror::Error;

use crate::{BudgetPlan, HeadLayout, HeadScores, LayerView, ObservationRequest, TokenScores};

/// Why a method could not say what to keep.
#[derive(Debug, Error, PartialEq)]
pub enum PolicyError {
    /// The compressor read something that it did not ask for in [`CacheCompressor::observations`].
    #[error("layer {layer}: {what} was not recorded during prefill; the method's `observations` must ask for it")]
    MissingObservation {
        /// The observation.
        what: &'static str,
        /// The layer.
        layer: usize,
    },
    /// NaN or an infinity among the scores.
    #[error("method `{method}`: the score of token {token} in layer {layer}, KV head {kv_head} is {value}")]
    NotFinite {
        /// Name of the method.
        method: String,
        /// The layer.
        layer: usize,
        /// The KV head of that layer.
        kv_head: usize,
        /// The prompt position.
        token: usize,
        /// The score.
        value: f32,
    },
    /// A compressor or an allocator returned an array of the wrong length.
    #[error("method `{method}`: {what} has {found} values where {expected} are needed")]
    WrongLength {
        /// Name of the method.
        method: String,
        /// What was returned.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The length that the model and the prompt ask for.
        expected: usize,
    },
    /// The allocator works on scores that the run did not give it.
    #[error("{0}")]
    MissingScores(String),
}

/// Prompt tokens that a compressor keeps whatever their scores are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Tokens at the start.
    pub sinks: usize,
    /// Tokens at the end.
    pub window: usize,
}

/// Says how much every prompt token is worth to every KV head.
///
/// A new policy is one file: a struct with its settings (`serde`, unknown keys denied), this trait, and one line in a
/// registry.
pub trait CacheCompressor: Debug + Send + Sync {
    /// What prefill must record for [`score`](Self::score).
    fn observations(&self) -> ObservationRequest {
        ObservationRequest::default()
    }

    /// Tokens kept before any other. Where a head's budget is smaller than both, the window's youngest tokens go first,
    /// then the sinks.
    fn protected(&self) -> Protected {
        Protected::default()
    }

    /// Whether anything is evicted at all; `false` keeps the whole prompt at every budget.
    fn evicts(&self) -> bool {
        true
    }

    /// Scores of one layer: `[kv_heads, prompt_len]`, row-major, higher is kept first, finite. Scores of protected
    /// tokens are ignored.
    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError>;
}

/// What an allocator may look at.
#[derive(Clone, Copy, Debug)]
pub struct AllocationRequest<'a> {
    /// Heads of the model.
    pub layout: HeadLayout,
    /// Prompt tokens.
    pub prompt_len: usize,
    /// Tokens that all heads may keep together, protected ones included.
    pub total: usize,
    /// What the compressor keeps in every head.
    pub protected: Protected,
    /// This prompt's scores, all layers.
    pub token_scores: &'a TokenScores,
    /// What the heads are worth, found offline, if the method names such scores.
    pub head_scores: Option<&'a HeadScores>,
}

/// Says how many prompt tokens each KV head keeps.
pub trait BudgetAllocator: Debug + Send + Sync {
    /// A count for every head, at most `prompt_len`, together at most `total` unless the allocator's documentation says
    /// that it overspends as published.
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError>;
}
