//! KVzap (Jegou and Jeblick, arXiv 2601.07891): what a second reading would say, guessed from hidden states.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::linear_algebra::dot;

/// Scores a token by a linear guess at the logarithm of its [KVzip+](super::KvZipPlus) score, from the token's input to the layer, which
/// `cokv learn --guess` fits to the model. One reading suffices; scores of all heads and layers are comparable.
///
/// The paper evicts by a threshold, about -4 (`allocator = { name = "threshold", threshold = -4 }`).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KvZap {
    /// First tokens that are always kept.
    pub sinks: usize,
    /// Latest tokens that are always kept.
    pub window: usize,
}

impl Default for KvZap {
    fn default() -> Self {
        Self { sinks: 4, window: 128 }
    }
}

impl CacheCompressor for KvZap {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { inputs: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: self.window }
    }

    fn needs_learned(&self) -> bool {
        true
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens) = (layer.layout, layer.prompt_len);
        let inputs = layer.recorded("inputs of layers", layer.inputs)?;
        let guess = &layer.learned()?.guess;
        if guess.is_empty() {
            return Err(PolicyError::NoGuess);
        }
        let width = inputs.len() / tokens.max(1);
        let of_head = &guess[layer.first_kv_head * (width + 1)..];
        let mut scores = Vec::with_capacity(layout.kv_heads * tokens);
        for weights in of_head.chunks_exact(width + 1).take(layout.kv_heads) {
            let (weights, constant) = (&weights[..width], weights[width]);
            scores.extend(inputs.chunks_exact(width.max(1)).map(|input| dot(weights, input) + constant));
        }
        Ok(scores)
    }
}
