//! No compression: the reference that every other method is measured against.

use cokv_core::{CacheCompressor, LayerView, PolicyError};
use serde::{Deserialize, Serialize};

/// Keeps the whole prompt at every budget.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Full {}

impl CacheCompressor for Full {
    fn evicts(&self) -> bool {
        false
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        Ok(vec![0.0; layer.layout.kv_heads * layer.prompt_len])
    }
}
