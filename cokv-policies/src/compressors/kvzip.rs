//! KVzip (Kim et al., arXiv 2505.23416): tokens that the model looks at while it repeats the prompt.

use std::num::NonZeroUsize;

use cokv_core::{CacheCompressor, Frame, LayerView, PolicyError, Protected, Replay};
use serde::{Deserialize, Serialize};

use super::group::group_max;

const CHUNK: NonZeroUsize = NonZeroUsize::new(2048).unwrap();

/// What asks for the first chunk and for any other, as published.
const REPEAT: &str = "\n\nRepeat the previous context exactly.";
const REPEAT_PART: &str = "\n\nRepeat the part of the previous context exactly, starting with";

/// Tokens of the chunk before that show where a chunk starts.
const OVERLAP: usize = 8;

/// Feeds the prompt again, chunk by chunk, behind a request to repeat it. A token's score is the largest weight that
/// any fed token gives it, over the group too. It serves every question, since none is seen, and one second pass serves
/// all budgets.
///
/// The published form lets all heads of the model compete without a floor: the preset `kvzip-global`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KvZip {
    /// Tokens that are repeated at a time.
    pub chunk: NonZeroUsize,
    /// Tokens at the start that are kept, and that fed tokens see beside their chunk.
    pub sinks: usize,
    /// Whether what a chat template puts around the user's text is worth more than all else: before it as in the authors'
    /// code, and behind it, where a prompt is compressed with its question. It is not repeated, so that it is worth nothing
    /// otherwise, as in kvpress.
    pub protect_template: bool,
}

impl Default for KvZip {
    fn default() -> Self {
        Self { chunk: CHUNK, sinks: 4, protect_template: true }
    }
}

impl KvZip {
    /// Scores of a layer from what each query head's tokens got, `[query_heads, prompt_len]`.
    pub(super) fn of_weights(&self, layer: &LayerView<'_>, weights: &[f32]) -> Vec<f32> {
        let tokens = layer.prompt_len;
        let mut scores = group_max(layer.layout, weights, tokens);
        if self.protect_template {
            let above = scores.iter().copied().fold(0.0, f32::max) + 1.0;
            for head in scores.chunks_exact_mut(tokens.max(1)) {
                head[..layer.frame.head.min(tokens)].fill(above);
                head[tokens - layer.frame.tail.min(tokens)..].fill(above);
            }
        }
        scores
    }

    /// The second pass.
    pub(super) fn pass(&self) -> Replay {
        Replay {
            chunk: self.chunk.get(),
            verbatim: false,
            first: REPEAT.into(),
            further: REPEAT_PART.into(),
            overlap: OVERLAP,
            sinks: self.sinks,
            queries: 0,
        }
    }
}

impl CacheCompressor for KvZip {
    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn replay(&self) -> Option<Replay> {
        Some(self.pass())
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        Ok(self.of_weights(layer, &layer.replayed(&self.pass())?.weights))
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::Frame;

    use crate::compressors::closed_form::{Prompt, best_of_layer, method};

    const TWO_CHUNKS: &str = "{ name = 'kvzip', chunk = 8, sinks = 2 }";

    /// Tokens 0 to 7 repeated without sinks, 8 to 15 with two.
    #[test]
    fn weights_of_the_closed_form() {
        Prompt::new(16).assert_scores(
            TWO_CHUNKS,
            0,
            [
                [
                    0.1820849, 0.2133632, 0.2065846, 0.2716111, 0.3013228, 0.3904442, 0.4446563, 0.4672044, 0.2550027,
                    0.2817592, 0.1405521, 0.4965545, 0.406719, 0.1727915, 0.1874442, 0.1702433,
                ],
                [
                    0.3158784, 0.3068763, 0.2410968, 0.1700026, 0.1336675, 0.0922875, 0.1632393, 0.2947313, 0.1994986,
                    0.1308865, 0.1099486, 0.0966972, 0.0995169, 0.1784106, 0.1868844, 0.3055752,
                ],
            ],
        );
        let best = best_of_layer(&Prompt::new(16).score(&method(TWO_CHUNKS)), 16);
        assert_eq!(best, [vec![1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12], vec![0, 1, 2, 7, 15]]);
    }

    #[test]
    fn a_chat_templates_words_are_worth_the_most_if_wanted() {
        let score = |protect: bool| {
            let prompt = Prompt::new(16).within(Frame { head: 6, question: 4, tail: 2 });
            prompt.score(&method(&format!("{{ name = 'kvzip', protect_template = {protect} }}")))
        };
        let (protected, plain) = (score(true), score(false));
        let highest = plain.iter().copied().fold(0.0, f32::max);
        for (protected, plain) in protected.chunks_exact(16).zip(plain.chunks_exact(16)) {
            assert!(protected[..6].iter().chain(&protected[14..]).all(|&score| score > highest));
            assert_eq!(protected[6..14], plain[6..14]);
        }
    }
}
