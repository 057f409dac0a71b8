//! A decoder on some backend, with the backend's types erased: prefill, decoding, teacher forcing, the game and the batch call
//! this and nothing below it.

use cokv_core::{Format, ObservationRequest, Replayed, RotaryEmbedding};

use crate::ask::{Answer, Ask};
use crate::backend::{Ceilings, LayerSummaries, Replaying, Watch};
use crate::cache::{RaggedCache, Segment};
use crate::config::ModelConfig;
use crate::error::ModelError;

/// New tokens of one sequence.
pub struct Row<'a> {
    /// Tokens that the cache has not seen; at least one.
    pub tokens: &'a [u32],
    /// What came before, as far as it was kept.
    pub cache: &'a mut RaggedCache,
    /// What records the row, of this engine, for prompts that the cache holds from its beginning: one that ends with the row's text,
    /// and those that end before.
    pub watches: Vec<&'a mut dyn Watch>,
    /// What it wants to know.
    pub ask: Ask<'a>,
    /// Tokens of the text that they are read with, from the sequence's beginning to its end: the whole prompt's, whichever
    /// chunk this is. 0 where each token is read as if it were the last, as those of answers are. Rotary frequencies that
    /// depend on a length depend on this one.
    pub within: usize,
}

impl<'a> Row<'a> {
    /// Tokens of an answer, which nobody watches: the same whether they come one at a time or together.
    pub fn new(tokens: &'a [u32], cache: &'a mut RaggedCache, ask: Ask<'a>) -> Self {
        Self { tokens, cache, watches: Vec::new(), ask, within: 0 }
    }

    /// Tokens of a text that ends after so many tokens of the sequence, whose beginning may have been cached long ago.
    pub fn within(self, within: usize) -> Self {
        Self { within, ..self }
    }
}

/// Runs rows of tokens through a model.
///
/// ```
/// use std::sync::Arc;
///
/// use cokv_core::Format;
/// use cokv_models::ask::Ask;
/// use cokv_models::engine::{Engine, Row};
/// use cokv_models::source::{Observer, Source};
/// use cokv_models::{LanguageModel, LoadOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let files = "random:tiny".parse::<Source>()?.fetch(Observer::default())?;
/// let model = LanguageModel::load(&files, &LoadOptions::default(), |_, _| {})?;
/// let engine: &Arc<dyn Engine> = model.engine();
/// // Two sequences in one pass, the first of which nobody asks anything.
/// let mut caches = [engine.cache(Format::F16, 3)?, engine.cache(Format::F16, 2)?];
/// let [first, second] = &mut caches;
/// let rows = [Row::new(&[7, 8, 9], first, Ask::Nothing), Row::new(&[7, 8], second, Ask::Logits)];
/// let answer = engine.step(&mut { rows })?.remove(1);
/// assert_eq!(answer.logits(|| "of the second row".into())?.len(), engine.config().vocabulary);
/// assert_eq!(caches.map(|cache| cache.next_position()), [3, 2]);
/// # Ok(())
/// # }
/// ```
pub trait Engine: Send + Sync {
    /// The model's shape.
    fn config(&self) -> &ModelConfig;

    /// What computes. It goes into fingerprints: what rounds differently has another name.
    fn backend(&self) -> &'static str;

    /// Bytes that caches and batches may still take, where that is known.
    fn free_bytes(&self) -> Option<u64>;

    /// Bytes that the device held at its peak since this was last asked; none where that is the host's memory.
    fn take_peak_bytes(&self) -> Option<u64> {
        None
    }

    /// What the device can do at most, measured in a second or two; none where that is the host's processor.
    ///
    /// # Errors
    /// Of the device.
    fn ceilings(&self) -> Result<Option<Ceilings>, ModelError> {
        Ok(None)
    }

    /// Prompt tokens that one pass had best have.
    fn chunk(&self) -> usize;

    /// Bytes of the weights that every step reads: all but those of an embedding table of its own, of which it reads a row.
    fn weight_bytes(&self) -> usize;

    /// How queries and keys of a prompt of so many tokens are turned by their positions.
    fn rotary(&self, prompt_len: usize) -> RotaryEmbedding;

    /// A cache that has seen nothing, with room for `tokens` in every head.
    fn cache(&self, format: Format, tokens: usize) -> Result<RaggedCache, ModelError>;

    /// Nothing recorded yet of a prompt.
    fn watch(&self, request: ObservationRequest, prompt_len: usize) -> Box<dyn Watch>;

    /// Nothing recorded yet of a chunk of a prompt that is fed again.
    fn watch_replay(&self, replaying: Replaying) -> Box<dyn Watch>;

    /// Takes what the fed tokens gave to a layer: of the chunk, `[query_heads, chunk]`; queries are
    /// `[queries, query_heads, head_dim]`.
    ///
    /// # Errors
    /// Where the watch is another engine's.
    fn replayed(&self, watch: &mut dyn Watch, layer: usize) -> Result<Replayed, ModelError>;

    /// Nothing recorded yet of an answer, whose last `count` queries will be.
    fn watch_queries(&self, count: usize) -> Box<dyn Watch>;

    /// The last queries of an answer after RoPE, oldest first, `[tokens, query_heads, head_dim]`: as many as are watched, or as
    /// there are.
    ///
    /// # Errors
    /// Where the watch is another engine's.
    fn last_queries(&self, watch: &dyn Watch, layer: usize) -> Result<Vec<f32>, ModelError>;

    /// One pass over all rows, each with its own question: chunks of prompts, answers and coalitions may share it. Appends the
    /// keys and values of all tokens to the rows' caches, and returns an answer for each row.
    ///
    /// # Errors
    /// Before anything is appended where a row cannot be run; after an error of the backend the rows' caches are not to be
    /// used again. A row whose numbers are not finite is no error of the pass: its answer says so.
    fn step(&self, rows: &mut [Row<'_>]) -> Result<Vec<Answer>, ModelError>;

    /// What compressors see of a layer of a watched prompt.
    fn summaries(&self, watch: &dyn Watch, prompt: &Segment, layer: usize) -> Result<LayerSummaries, ModelError>;
}
