//! CapKV (arXiv 2604.25975): values that others do not say already, where queries are likely to look.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected, QueryStatistics};
use serde::{Deserialize, Serialize};

use super::group::{group_mean, norm};
use super::linear_algebra::{Symmetric, dot};
use super::mean_rotation::MeanRotation;
use crate::settings::AtLeastZero;

const SHARPNESS: AtLeastZero = AtLeastZero::new(5.0).unwrap();

/// Weight of a value that no query looks at.
const LEAST_WEIGHT: f64 = 1e-6;

/// Expects future queries in the direction of the prompt's mean query before RoPE, turned by the mean rotation of the
/// positions to come. A key weighs `w = exp(sharpness · cos)` of its angle to that direction, up to a factor; a token's
/// score is the leverage of its value among all of such weights, `w vᵀ (1 + Σ w v vᵀ)⁻¹ v`, mean over the group.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapKv {
    /// Tokens kept at the start, which count among none.
    pub sinks: usize,
    /// Positions after the prompt that are expected to ask.
    pub future: usize,
    /// How much more a key in the expected direction weighs; the paper's τ.
    pub sharpness: AtLeastZero,
}

impl Default for CapKv {
    fn default() -> Self {
        Self { sinks: 4, future: 512, sharpness: SHARPNESS }
    }
}

impl CapKv {
    /// Scores of one query head, from its expected query and keys and values behind the sinks, `[tokens, head_dim]`.
    fn head(&self, query: &[f32], keys: &[f32], values: &[f32], dim: usize) -> Vec<f32> {
        let cosine = |key: &[f32]| dot(query, key) / (norm(query) * norm(key)).max(f32::MIN_POSITIVE);
        let logits: Vec<f64> =
            keys.chunks_exact(dim).map(|key| self.sharpness.get() * f64::from(cosine(key))).collect();
        let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = logits.iter().map(|logit| (logit - highest).exp()).collect();
        let mut squares = Symmetric::diagonal(dim, 1.0);
        for (weight, value) in weights.iter().zip(values.chunks_exact(dim)) {
            squares.add_square(weight + LEAST_WEIGHT, value);
        }
        let factor = squares.cholesky();
        let leverage = |(weight, value): (&f64, &[f32])| {
            factor.as_ref().map_or(0.0, |factor| (weight * factor.inverse_quadratic(value)) as f32)
        };
        weights.iter().zip(values.chunks_exact(dim)).map(leverage).collect()
    }
}

impl CacheCompressor for CapKv {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { query_statistics: true, keys: true, values: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens, dim) = (layer.layout, layer.prompt_len, layer.layout.head_dim);
        // No query to learn from, or nothing to choose between.
        if tokens <= QueryStatistics::FIRST_POSITION.max(self.sinks) {
            return Ok(vec![0.0; layout.kv_heads * tokens]);
        }
        let keys = layer.recorded("keys", layer.keys)?;
        let values = layer.recorded("values", layer.values)?;
        let statistics = layer.recorded("query statistics", layer.query_statistics)?;
        let rotary = layer.recorded("the rotary embedding", layer.rotary)?;

        let expected = MeanRotation::new(rotary, layer.next_position()..layer.next_position() + self.future)
            .turn(&statistics.mean, dim);
        let mut leverages = Vec::with_capacity(layout.query_heads * tokens);
        for (query_head, query) in expected.chunks_exact(dim).enumerate() {
            let start = query_head / layout.group() * tokens;
            let behind_sinks = (start + self.sinks) * dim..(start + tokens) * dim;
            leverages.extend(std::iter::repeat_n(0.0, self.sinks));
            leverages.extend(self.head(query, &keys[behind_sinks.clone()], &values[behind_sinks], dim));
        }
        Ok(group_mean(layout, &leverages, tokens))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::{LAYOUT, Prompt, method};

    /// Of tokens 1 to 15, one sink, in a model without rotation whose statistics leave out one token and not four.
    #[test]
    fn leverages_of_the_closed_form() {
        let prompt = Prompt::new(16).without_rotation();
        let mut mean = vec![0.0; 16];
        for (head, token, channel) in (0..4).flat_map(|h| (1..16).flat_map(move |t| (0..4).map(move |c| (h, t, c)))) {
            let query = 2.0 * (0.9 * ((token + 1) * (channel + 1)) as f64 / (head + 1) as f64).cos();
            mean[head * 4 + channel] += (query / 15.0) as f32;
        }
        let statistics = QueryStatistics { mean, covariance: Vec::new() };
        let view = LayerView { query_statistics: Some(&statistics), ..prompt.view() };
        let scores = CapKv { sinks: 1, ..CapKv::default() }.score(&view).unwrap();
        let expected = [
            [
                0.0588782, 0.1437128, 0.0033094, 0.0127108, 0.15457, 0.2583068, 0.0201498, 0.2809167, 0.2553744,
                0.0221951, 0.0087413, 0.2240462, 0.0434866, 0.0374185, 0.0346102,
            ],
            [
                0.0020694, 0.0053037, 0.0166392, 0.0300822, 0.3239197, 0.2334006, 0.2156908, 0.4260993, 0.2012429,
                0.0008482, 0.0006199, 0.0029439, 0.0088845, 0.0026103, 0.0227639,
            ],
        ];
        for (head, expected) in scores.chunks_exact(16).zip(&expected) {
            for (ours, expected) in head[1..].iter().zip(expected) {
                assert!((f64::from(*ours) - expected).abs() < 1e-6, "{ours} and not {expected}");
            }
        }
    }

    /// What is added up over the tokens of a query head is below the number of channels.
    #[test]
    fn leverages_add_up_to_less_than_a_value_has_numbers() {
        let (layout, prompt) = (cokv_core::HeadLayout { kv_heads: 4, ..LAYOUT }, Prompt::new(40));
        let view = prompt.view();
        let both = |of_heads: &[f32]| of_heads.chunks_exact(40 * 4).flat_map(|head| head.repeat(2)).collect::<Vec<_>>();
        let (keys, values) = (both(view.keys.unwrap()), both(view.values.unwrap()));
        for sharpness in [0.0, 1.0, 5.0, 100.0] {
            let view = LayerView { layout, keys: Some(&keys), values: Some(&values), ..view };
            let scores =
                CapKv { sharpness: AtLeastZero::new(sharpness).unwrap(), ..CapKv::default() }.score(&view).unwrap();
            for head in scores.chunks_exact(40) {
                let sum: f32 = head.iter().sum();
                assert!(head.iter().all(|&score| score >= 0.0) && sum < 4.0, "{sharpness}: {sum}");
            }
        }
    }

    #[test]
    fn a_prompt_of_sinks_is_kept() {
        for tokens in [1, 4] {
            assert_eq!(Prompt::new(tokens).score(&method("'capkv'")), vec![0.0; 2 * tokens]);
        }
    }
}
