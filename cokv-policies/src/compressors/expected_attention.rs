//! Expected Attention (Devoto et al., arXiv 2510.00636): attention that future queries are likely to pay.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected, QueryStatistics};
use serde::{Deserialize, Serialize};

use super::group::{group_mean, norm};
use super::linear_algebra::{dot, quadratic};
use super::mean_rotation::MeanRotation;
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
    /// Whose queries say what is to come.
    #[serde(skip_serializing_if = "Statistics::is_prompts")]
    pub statistics: Statistics,
    /// Added to the expected attention before it is multiplied by the value's length. kvpress has 0.01 under Ada-KV.
    pub epsilon: f64,
}

impl Default for ExpectedAttention {
    fn default() -> Self {
        Self { sinks: 4, future: 512, statistics: Statistics::Prompt, epsilon: 0.0 }
    }
}

/// Whose queries say what is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Statistics {
    /// The prompt's own.
    #[default]
    Prompt,
    /// Those of other texts, learned once (`cokv learn`; kvpress's ExpectedAttentionStats).
    Learned,
}

impl Statistics {
    fn is_prompts(&self) -> bool {
        *self == Self::Prompt
    }
}

impl CacheCompressor for ExpectedAttention {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest {
            query_statistics: self.statistics.is_prompts(),
            keys: true,
            values: true,
            ..Default::default()
        }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn needs_learned(&self) -> bool {
        self.statistics == Statistics::Learned
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens) = (layer.layout, layer.prompt_len);
        // No query to learn from, and nothing to choose between.
        if tokens <= QueryStatistics::FIRST_POSITION.max(self.sinks) {
            return Ok(vec![0.0; layout.kv_heads * tokens]);
        }
        let keys = layer.recorded("keys", layer.keys)?;
        let values = layer.recorded("values", layer.values)?;
        let (statistics, first) = match self.statistics {
            Statistics::Prompt => (layer.recorded("query statistics", layer.query_statistics)?, 0),
            Statistics::Learned => (&layer.learned()?.queries, layer.first_kv_head * layout.group()),
        };
        let rotary = layer.recorded("the rotary embedding", layer.rotary)?;

        let dim = layout.head_dim;
        let turned_back =
            MeanRotation::new(rotary, layer.next_position()..layer.next_position() + self.future).turn_back(keys, dim);
        let mut attention = Vec::with_capacity(layout.query_heads * tokens);
        for query_head in 0..layout.query_heads {
            let mean = &statistics.mean[(first + query_head) * dim..][..dim];
            let covariance = &statistics.covariance[(first + query_head) * dim * dim..][..dim * dim];
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
