//! KeyDiff (Park et al., arXiv 2504.15364): keys unlike the others.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError};
use serde::{Deserialize, Serialize};

use super::group::{norm, per_token};

/// Scores a token by the negative cosine between its key (after RoPE) and the mean direction of all keys of its head.
/// Decides once, after the prompt; the paper works block by block.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyDiff {}

impl CacheCompressor for KeyDiff {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { keys: true, ..Default::default() }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, keys) = (layer.layout, layer.recorded("keys", layer.keys)?);
        let mut scores = Vec::with_capacity(layout.kv_heads * layer.prompt_len);
        for head in keys.chunks_exact((layer.prompt_len * layout.head_dim).max(1)) {
            let mut anchor = vec![0.0; layout.head_dim];
            for key in head.chunks_exact(layout.head_dim) {
                let length = norm(key).max(f32::MIN_POSITIVE);
                anchor.iter_mut().zip(key).for_each(|(sum, x)| *sum += x / length / layer.prompt_len as f32);
            }
            scores.extend(per_token(layout, head, |key| -cosine(key, &anchor)));
        }
        Ok(scores)
    }
}

/// 0 where a vector has no direction.
fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot: f32 = a.iter().zip(b).map(|(a, b)| a * b).sum();
    dot / (norm(a) * norm(b)).max(f32::MIN_POSITIVE)
}
