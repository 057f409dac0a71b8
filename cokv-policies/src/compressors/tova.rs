//! TOVA (Oren et al., arXiv 2401.06104): tokens that the last query attends to.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::window::WindowFrom;

/// Scores a token by the attention of the prompt's last query, mean over all query heads of the layer: all its KV heads
/// keep the same tokens. Its token is always kept. Decides once, after the prompt (kvpress); the paper evicts one
/// token per step.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tova {
    /// Which query is the last. Behind a chat template it is the template's, which sees no question: the last of the
    /// user's text left both of our small models closer to their full caches (KL 2.9 → 2.1 and 3.4 → 2.5 on generated
    /// tasks at 64 tokens).
    pub window_from: WindowFrom,
}

impl CacheCompressor for Tova {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        ObservationRequest { window: self.window_from.reach(1, frame.tail), ..Default::default() }
    }

    fn protected(&self, frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window_from.reach(1, frame.tail) }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        Ok(self.window_from.mean_last_row(layer)?.repeat(layer.layout.kv_heads))
    }
}
