//! Expected Attention (Devoto et al., arXiv 2510.00636): attention that future queries are likely to pay.

use std::ops::Range;

use cokv_core::{
    CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected, QueryStatistics, RotaryEmbedding,
    RotaryPairs,
};
use serde::{Deserialize, Serialize};

use super::group::{group_mean, norm};
use super::softmax::softmax;

/// Takes future queries for normally distributed, with the mean `μ` and covariance `Σ` of the prompt's queries before
/// RoPE, turned by the mean rotation `R̄` of the positions to come. The expected attention of key `k` is then
/// `exp(μᵀR̄ᵀk / √d + kᵀR̄ΣR̄ᵀk / 2d)`, normalised over the prompt; a token's score is its mean over the group times the
/// length of the value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExpectedAttention {
    /// Tokens kept at the start and left out of the normalisation.
    pub sinks: usize,
    /// Positions after the prompt that are expected to ask.
    pub future: usize,
    /// Added to the expected attention before it is multiplied by the value's length. kvpress has 0.01 under Ada-KV.
    pub epsilon: f64,
}

impl Default for ExpectedAttention {
    fn default() -> Self {
        Self { sinks: 4, future: 512, epsilon: 0.0 }
    }
}

impl CacheCompressor for ExpectedAttention {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { query_statistics: true, keys: true, values: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens) = (layer.layout, layer.prompt_len);
        // No query to learn from, and nothing to choose between.
        if tokens <= QueryStatistics::FIRST_POSITION.max(self.sinks) {
            return Ok(vec![0.0; layout.kv_heads * tokens]);
        }
        let keys = layer.recorded("keys", layer.keys)?;
        let values = layer.recorded("values", layer.values)?;
        let statistics = layer.recorded("query statistics", layer.query_statistics)?;
        let rotary = layer.recorded("the rotary embedding", layer.rotary)?;

        let dim = layout.head_dim;
        let turned_back = MeanRotation::new(rotary, tokens..tokens + self.future).turn_back(keys, dim);
        let mut attention = Vec::with_capacity(layout.query_heads * tokens);
        for query_head in 0..layout.query_heads {
            let mean = &statistics.mean[query_head * dim..][..dim];
            let covariance = &statistics.covariance[query_head * dim * dim..][..dim * dim];
            let head = &turned_back[query_head / layout.group() * tokens * dim..][..tokens * dim];
            let logit =
                |key: &[f32]| dot(mean, key) / (dim as f32).sqrt() + quadratic(covariance, key) / (2 * dim) as f32;
            let logits: Vec<f32> = head.chunks_exact(dim).skip(self.sinks).map(logit).collect();
            attention.extend(std::iter::repeat_n(0.0, self.sinks));
            attention.extend(softmax(&logits));
        }
        let mut scores = group_mean(layout, &attention, tokens);
        let lengths = values.chunks_exact(dim).map(norm);
        let epsilon = self.epsilon as f32;
        scores.iter_mut().zip(lengths).for_each(|(score, length)| *score = (*score + epsilon) * length);
        Ok(scores)
    }
}

/// The mean of the rotations of some positions, with their scale: cosine and sine of each pair.
struct MeanRotation {
    pairs: RotaryPairs,
    cos_sin: Vec<(f32, f32)>,
}

impl MeanRotation {
    fn new(rotary: &RotaryEmbedding, positions: Range<usize>) -> Self {
        let count = positions.len().max(1) as f64;
        let mean = |&frequency: &f32| {
            let angles = positions.clone().map(|position| position as f64 * f64::from(frequency));
            let (sin, cos) = angles.map(f64::sin_cos).fold((0.0, 0.0), |sum, at| (sum.0 + at.0, sum.1 + at.1));
            ((cos / count) as f32 * rotary.scale, (sin / count) as f32 * rotary.scale)
        };
        Self { pairs: rotary.pairs, cos_sin: rotary.frequencies.iter().map(mean).collect() }
    }

    /// The transposed rotation of every vector.
    fn turn_back(&self, vectors: &[f32], dim: usize) -> Vec<f32> {
        let half = self.cos_sin.len().min(dim / 2);
        let mut turned = vectors.to_vec();
        for vector in turned.chunks_exact_mut(dim) {
            for (pair, &(cos, sin)) in self.cos_sin[..half].iter().enumerate() {
                let (first, second) = match self.pairs {
                    RotaryPairs::Halves => (pair, pair + half),
                    RotaryPairs::Neighbours => (2 * pair, 2 * pair + 1),
                };
                let (a, b) = (vector[first], vector[second]);
                (vector[first], vector[second]) = (a * cos + b * sin, b * cos - a * sin);
            }
        }
        turned
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `vᵀ M v` for a square matrix, row by row.
fn quadratic(matrix: &[f32], vector: &[f32]) -> f32 {
    matrix.chunks_exact(vector.len()).zip(vector).map(|(row, x)| x * dot(row, vector)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition: the mean over future positions of the logits of the turned mean query.
    #[test]
    fn the_mean_rotation_is_the_mean_of_the_rotations() {
        let query = [0.3f32, -1.2, 0.8, 0.5];
        let key = [1.1f32, 0.4, -0.7, 0.9];
        let frequencies = vec![1.0f32, 0.1];
        for pairs in [RotaryPairs::Halves, RotaryPairs::Neighbours] {
            let turned_query = |position: usize| {
                let mut turned = query;
                for (pair, frequency) in frequencies.iter().enumerate() {
                    let (first, second) =
                        if pairs == RotaryPairs::Halves { (pair, pair + 2) } else { (2 * pair, 2 * pair + 1) };
                    let (sin, cos) = (position as f32 * frequency).sin_cos();
                    turned[first] = query[first] * cos - query[second] * sin;
                    turned[second] = query[second] * cos + query[first] * sin;
                }
                turned
            };
            let expected = (10..15).map(|position| dot(&turned_query(position), &key)).sum::<f32>() / 5.0;
            let rotary = RotaryEmbedding { frequencies: frequencies.clone(), scale: 1.5, pairs };
            let turned_key = MeanRotation::new(&rotary, 10..15).turn_back(&key, 4);
            assert!((dot(&query, &turned_key) - 1.5 * expected).abs() < 1e-5, "{pairs:?}");
        }
    }

    #[test]
    fn quadratic_forms() {
        assert_eq!(quadratic(&[2.0, 1.0, 1.0, 3.0], &[1.0, -2.0]), 2.0 - 4.0 + 12.0);
    }
}
