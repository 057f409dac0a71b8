//! DropKV (openreview MqfNzH3TVH, kvpress issue 284): how much the window's outputs move when a token is gone.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, ObservationRequest, PolicyError, Protected,
};
use serde::{Deserialize, Serialize};

use super::group::group_mean;
use super::linear_algebra::weighted_sum;
use super::window::{WindowFrom, check_window};

/// Scores a token by the exact error that its absence leaves in the outputs of the observation window's queries, once
/// their attention to the rest is normalised again: `Σ (p / (1 − p))² ‖v − o‖²`, mean over the group. Errors are
/// comparable between heads, as Ada-KV's pools want them.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropKv {
    /// Queries at the end of the prompt that vote; their own tokens are always kept.
    pub window: usize,
    /// Where the window ends.
    pub window_from: WindowFrom,
}

impl Default for DropKv {
    fn default() -> Self {
        Self { window: 8, window_from: WindowFrom::default() }
    }
}

impl DropKv {
    /// Refuses settings that contradict themselves.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        check_window(settings, "dropkv", self.window)?;
        Ok(self)
    }
}

impl CacheCompressor for DropKv {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        let window = self.window_from.reach(self.window, frame.tail);
        ObservationRequest { window, values: true, ..Default::default() }
    }

    fn protected(&self, frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window_from.reach(self.window, frame.tail) }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens, dim) = (layer.layout, layer.prompt_len, layer.layout.head_dim);
        let prefix = self.protected(layer.frame).candidates(tokens).end;
        let values = layer.recorded("values", layer.values)?;
        let mut errors = vec![0.0; layout.query_heads * tokens];
        for query_head in 0..layout.query_heads {
            let values = &values[query_head / layout.group() * tokens * dim..][..tokens * dim];
            let errors = &mut errors[query_head * tokens..][..prefix];
            for row in self.window_from.rows(layer, query_head, self.window)?.chunks_exact(tokens.max(1)) {
                let output = weighted_sum(row, values, dim);
                let tokens = row.iter().zip(values.chunks_exact(dim));
                for (error, (weight, value)) in errors.iter_mut().zip(tokens) {
                    let moved: f32 = value.iter().zip(&output).map(|(v, o)| (v - o) * (v - o)).sum();
                    *error += odds(*weight).powi(2) * moved;
                }
            }
        }
        Ok(group_mean(layout, &errors, tokens))
    }
}

/// `p / (1 − p)` of a weight: how much the others grow when it is gone.
pub fn odds(weight: f32) -> f32 {
    weight / (1.0 - weight).max(1e-6)
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::Prompt;

    #[test]
    fn errors_of_the_closed_form() {
        let (prompt, dropkv) = (Prompt::new(16), "{ name = 'dropkv', window = 4 }");
        prompt.assert_scores(
            dropkv,
            0,
            [
                [
                    0.4484052, 0.2027314, 0.1924783, 0.0240831, 0.034277, 0.0858569, 0.2634264, 4.4458953, 0.7437762,
                    0.1605459, 0.0171564, 0.0179035,
                ],
                [
                    0.0553688, 0.0168806, 0.0767308, 0.2326187, 0.0872897, 2.1140344, 0.075714, 0.5064579, 0.8548529,
                    0.0306435, 0.0468179, 0.0223697,
                ],
            ],
        );
        assert_eq!(prompt.kept(dropkv, 8), [[0, 6, 7, 8, 12, 13, 14, 15], [3, 5, 7, 8, 12, 13, 14, 15]]);
    }
}
