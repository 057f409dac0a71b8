//! Random eviction: the floor that a policy must clear.

use cokv_core::random::mix;
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
        let draw = |head: u64, token: u64| {
            let bits = mix(mix(mix(self.seed) ^ head) ^ token);
            // The upper 24 bits are what an f32 in [0, 1) can hold.
            (bits >> 40) as f32 / (1u64 << 24) as f32
        };
        let positions = || (0..layer.prompt_len).map(|token| layer.position(token) as u64);
        Ok(heads.flat_map(|head| positions().map(move |token| draw(head, token))).collect())
    }
}
