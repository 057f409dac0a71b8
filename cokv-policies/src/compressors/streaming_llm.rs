//! StreamingLLM (Xiao et al., arXiv 2309.17453): attention sinks and the most recent tokens.

use cokv_core::{CacheCompressor, Frame, LayerView, PolicyError, Protected};
use serde::{Deserialize, Serialize};

/// Keeps the first tokens and the latest ones, in every head alike. Looks at nothing but positions; kept tokens stay at
/// their original positions (the paper moves them together).
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamingLlm {
    /// Tokens kept at the start.
    pub sinks: usize,
}

impl Default for StreamingLlm {
    fn default() -> Self {
        Self { sinks: 4 }
    }
}

impl CacheCompressor for StreamingLlm {
    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let recency = (0..layer.prompt_len).map(|token| token as f32);
        Ok(std::iter::repeat_n(recency, layer.layout.kv_heads).flatten().collect())
    }
}
