//! Separators (after SepLLM, Chen et al., arXiv 2412.12094): what a sentence says gathers in the token that ends it.

use cokv_core::{CacheCompressor, Frame, LayerView, PolicyError, Protected};
use serde::{Deserialize, Serialize};

/// Keeps the first tokens, then separators, then others, the latest first among each; in every head alike. The tokens'
/// ids are all that it looks at.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Separators {
    /// Ids of the model's separators, such as those of `.` and `,`.
    pub ids: Vec<u32>,
    /// Tokens kept at the start.
    #[serde(default = "four")]
    pub sinks: usize,
}

fn four() -> usize {
    4
}

impl CacheCompressor for Separators {
    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let recency = |at: usize| at as f32 / layer.prompt_len as f32;
        let separates = |token: &u32| if self.ids.contains(token) { 1.0 } else { 0.0 };
        let scores: Vec<f32> = layer.tokens.iter().enumerate().map(|(at, id)| separates(id) + recency(at)).collect();
        Ok(scores.repeat(layer.layout.kv_heads))
    }
}
