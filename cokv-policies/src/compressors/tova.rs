//! TOVA (Oren et al., arXiv 2401.06104): tokens that the last query attends to.

use cokv_core::{CacheCompressor, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

/// Scores a token by the attention of the prompt's last query, mean over all query heads of the layer: all its KV heads
/// keep the same tokens. The last token is always kept. Decides once, after the prompt (kvpress); the paper evicts one
/// token per step.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tova {}

impl CacheCompressor for Tova {
    fn observations(&self) -> ObservationRequest {
        ObservationRequest { window: 1, ..Default::default() }
    }

    fn protected(&self) -> Protected {
        Protected { sinks: 0, window: 1 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let mut mean = vec![0.0; layer.prompt_len];
        for query_head in 0..layer.layout.query_heads {
            let row = layer.last_rows(query_head, 1)?;
            mean.iter_mut().zip(row).for_each(|(sum, weight)| *sum += weight / layer.layout.query_heads as f32);
        }
        Ok(mean.repeat(layer.layout.kv_heads))
    }
}
