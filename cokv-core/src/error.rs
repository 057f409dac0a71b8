//! What can go wrong in a method.

use thiserror::Error;

use crate::PlanError;

/// Why a method could not say what to keep.
#[derive(Debug, Error, PartialEq)]
pub enum PolicyError {
    /// The compressor read something that it did not ask for in [`crate::CacheCompressor::observations`].
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
    /// The allocator's plan breaks its promises.
    #[error("method `{method}`: its allocator breaks a promise of `BudgetAllocator`: {broken}")]
    BrokenPlan {
        /// Name of the method.
        method: String,
        /// Which promise, and where.
        broken: PlanError,
    },
    /// A compressor returned scores of the wrong length, or an allocator was given such.
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
    /// The allocator works on what compressors say of layers, and this one says nothing.
    #[error("{0}")]
    MissingPreferences(String),
    /// A compressor works on what was learned of the model, and nothing was given.
    #[error("method `{method}`: `{compressor}` works on what was learned of the model")]
    NotLearned {
        /// Name of the method.
        method: String,
        /// The compressor.
        compressor: String,
    },
    /// A compressor guesses at what a second reading would say, and that was not learned.
    #[error("what was learned of the model has no guess at KVzip+: learn it again with cokv learn --guess")]
    NoGuess,
    /// What was learned is of another model, or lacks what the compressor reads.
    #[error("method `{method}`: what was learned is of {found} layers, and the model has {expected}")]
    LearnedOfOther {
        /// Name of the method.
        method: String,
        /// Layers that it is of.
        found: usize,
        /// Layers of the model.
        expected: usize,
    },
    /// A compressor cannot evict while a model answers.
    #[error(
        "method `{method}`: `{compressor}` looks at {lacks}, which is not there while a model answers: give `while_decoding` a \
         compressor that needs keys, values or attention alone, such as while_decoding = {{ compressor = \"snapkv\" }}"
    )]
    NotWhileDecoding {
        /// Name of the method.
        method: String,
        /// The compressor.
        compressor: String,
        /// What it looks at.
        lacks: &'static str,
    },
    /// What a compressor says of a layer is no number that a budget could follow.
    #[error("method `{method}`: layer {layer} needs {value} of the budget: it must be finite and at least 0")]
    UnfitPreference {
        /// Name of the method.
        method: String,
        /// The layer.
        layer: usize,
        /// How much it needs.
        value: f64,
    },
    /// The allocator's settings list more layers than the model has.
    #[error("`{setting}` lists {listed} layers, and the model has {layers}: list at most as many")]
    TooManyLayers {
        /// The setting.
        setting: &'static str,
        /// Layers that it lists.
        listed: usize,
        /// Layers of the model.
        layers: usize,
    },
    /// The head scores were found on a model of another shape.
    #[error(
        "the head scores are for {} layers of {} KV heads, the model has {} layers of {}: score this model's own heads",
        scores.0, scores.1, model.0, model.1
    )]
    OtherModel {
        /// Layers and KV heads per layer of the scored model.
        scores: (usize, usize),
        /// Layers and KV heads per layer of the model at hand.
        model: (usize, usize),
    },
    /// The heads cannot even keep what the compressor protects.
    #[error(
        "a total of {total} tokens is below the {protected} protected tokens (sinks, window, a chat template's tail) \
         of each of {heads} KV heads: raise the budget to at least {protected} tokens per head or shorten the window"
    )]
    BudgetBelowProtected {
        /// Tokens that all heads may keep together.
        total: usize,
        /// Protected tokens of one head, at most the prompt.
        protected: usize,
        /// KV heads of the model.
        heads: usize,
    },
    /// Leaving out the lowest heads leaves out all of them.
    #[error("`drop_lowest = {drop_lowest}` leaves none of the model's {heads} KV heads: it must be smaller than that")]
    NothingLeft {
        /// Heads to leave out.
        drop_lowest: usize,
        /// KV heads of the model.
        heads: usize,
    },
}
