//! Value-Aware Token Pruning (Guo et al., arXiv 2406.12335): attention times the size of the value.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected, WindowSum};
use serde::{Deserialize, Serialize};

/// Scores a token by the attention that the last queries of the prompt pay to it, mean over the KV head's query heads,
/// times the 1-norm of its value.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vatp {
    /// Last queries that are asked; they are always kept.
    pub window: usize,
}

impl Default for Vatp {
    fn default() -> Self {
        Self { window: 8 }
    }
}

impl Vatp {
    /// The queries that are asked. Only the sum of their attention counts, so that it is asked for instead of their rows.
    fn sum(&self) -> WindowSum {
        WindowSum { rows: self.window, tail: 0 }
    }
}

impl CacheCompressor for Vatp {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { window_sums: vec![self.sum()], values: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens) = (layer.layout, layer.prompt_len);
        let values = layer.recorded("values", layer.values)?;
        let norms = values.chunks_exact(layout.head_dim).map(|value| value.iter().map(|x| x.abs()).sum::<f32>());
        let mut scores: Vec<f32> = Vec::with_capacity(layout.kv_heads * tokens);
        for kv_head in 0..layout.kv_heads {
            let mut attention = vec![0.0; tokens];
            for query_head in kv_head * layout.group()..(kv_head + 1) * layout.group() {
                let of_head = layer.window_sum(query_head, self.sum())?;
                attention.iter_mut().zip(of_head).for_each(|(sum, weight)| *sum += weight);
            }
            scores.extend(attention);
        }
        scores.iter_mut().zip(norms).for_each(|(score, norm)| *score *= norm);
        Ok(scores)
    }
}
