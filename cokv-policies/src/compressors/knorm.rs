//! Knorm (Devoto et al., arXiv 2406.11430): keys of a small L2 norm attract attention.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError};
use serde::{Deserialize, Serialize};

use super::group::{norm, per_token};

/// Scores a token by the negative length of its key. RoPE does not change lengths. Nothing is protected; the paper also
/// leaves the first two layers whole, which is not a scorer's to say.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Knorm {}

impl CacheCompressor for Knorm {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { keys: true, ..Default::default() }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        Ok(per_token(layer.layout, layer.recorded("keys", layer.keys)?, |key| -norm(key)))
    }
}
