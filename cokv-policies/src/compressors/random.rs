//! Random eviction: the floor that a policy must clear.

use cokv_core::random::{fraction, mix};
use cokv_core::{CacheCompressor, Frame, LayerView, PolicyError, Protected};
use serde::{Deserialize, Serialize};

/// Keeps tokens drawn at random, another draw in every head. The draw depends on the seed, the head and the position
/// alone, so that every run, every budget and every prompt sees the same one; average over seeds for its spread.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Random {
    /// Which draw.
    pub seed: u64,
    /// Tokens at the end that are always kept; 0 leaves all to chance.
    pub window: usize,
}

impl CacheCompressor for Random {
    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let kv_heads = layer.layout.kv_heads;
        let heads = (0..kv_heads).map(|head| (layer.layout.flat(layer.layer, head) + layer.first_kv_head) as u64);
        let draw = |head: u64, token: u64| fraction(mix(mix(mix(self.seed) ^ head) ^ token));
        let positions = || (0..layer.prompt_len).map(|token| layer.position(token) as u64);
        Ok(heads.flat_map(|head| positions().map(move |token| draw(head, token))).collect())
    }
}
