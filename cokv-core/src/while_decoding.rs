//! Eviction while a model answers.

use crate::{CacheCompressor, Named, ObservationRequest, WhileDecodingSettings};

/// That what a cache holds, of the prompt and of the answer so far, is looked at again while the model answers, so that the cache
/// stays as small as the budget says however long the answer becomes.
///
/// Heads hold tokens of their own by then, so each is looked at by itself, with its group: a compressor sees views of one KV
/// head, of the tokens that it holds ([`LayerView::positions`](crate::LayerView::positions)). Attention is that of the answer's last
/// queries; those of the prompt are gone.
#[derive(Clone, Debug)]
pub struct WhileDecoding {
    /// Answer tokens from one look to the next: what a head holds grows by so many at most.
    pub every: usize,
    /// Says what a head's tokens are worth.
    pub compressor: Named<dyn CacheCompressor>,
}

impl WhileDecoding {
    /// Answer tokens from one look to the next, where nobody says.
    pub const EVERY: usize = 128;

    /// The settings, every default written out.
    pub fn settings(&self) -> WhileDecodingSettings {
        WhileDecodingSettings { every: self.every, compressor: self.compressor.settings().clone() }
    }

    /// Tokens that a head grows by at most: the first look waits until there are as many queries as the compressor looks at.
    pub fn most_growth(&self) -> usize {
        self.every.max(self.compressor.observations(Default::default()).last_queries())
    }

    /// What the compressor looks at that is not there while a model answers; none where it can be used.
    pub fn lacks(&self) -> Option<&'static str> {
        lacks(&self.compressor)
    }
}

/// What a compressor looks at that is gone once a prompt was read, the last queries apart.
pub(crate) fn lacks(compressor: &Named<dyn CacheCompressor>) -> Option<&'static str> {
    let ObservationRequest { block_sums, value_output_norms, output_grams, inputs, .. } =
        compressor.observations(Default::default());
    let lacking = [
        (compressor.replay().is_some(), "a second reading of the prompt"),
        (compressor.needs_question(), "where the question stands"),
        (!block_sums.is_empty(), "attention inside blocks of the prompt"),
        (value_output_norms || output_grams, "values behind the output projection"),
        (inputs, "hidden states"),
        (compressor.moves_keys(), "keys where their tokens stand, and turns them"),
        (compressor.adds_biases(), "a second reading of the prompt to fit biases to"),
    ];
    lacking.into_iter().find_map(|(lacks, what)| lacks.then_some(what))
}
