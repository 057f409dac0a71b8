//! CriticalKV (Feng et al., arXiv 2502.03805): a second stage that also looks at what a token would write.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::group::group_mean;
use super::ranking::{best_first, merge, reorder};
use crate::settings::Share;

const FIRST_STAGE: Share = Share::new(0.5).unwrap();

/// Keeps the best of another compressor with a part of the budget, and with the rest those whose
/// `(score + epsilon) · ‖W_o v‖₁` is highest, mean over the group.
///
/// A head's scores keep their values and only change places, so that allocators see the other compressor's: under Ada-KV
/// this is CriticalAdaKV.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CriticalKv {
    /// Part of the budget, beside the protected tokens, that follows the base scores alone; a half as published.
    pub first_stage: Share,
    /// Keeps a token of a large value in play that nobody attends to; 0.0001 as published.
    pub epsilon: f64,
}

impl Default for CriticalKv {
    fn default() -> Self {
        Self { first_stage: FIRST_STAGE, epsilon: 1e-4 }
    }
}

impl CacheCompressor for OnBase<CriticalKv> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn observations(&self, frame: Frame) -> ObservationRequest {
        self.base.observations(frame).union(ObservationRequest { value_output_norms: true, ..Default::default() })
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let tokens = layer.prompt_len;
        let mut scores = self.base.score(layer)?;
        let norms = layer.recorded("value output norms", layer.value_output_norms)?;
        let norms = group_mean(layer.layout, norms, tokens);
        let epsilon = self.settings.epsilon as f32;
        let candidates = self.base.protected(layer.frame).candidates(tokens);
        for (head, norms) in scores.chunks_exact_mut(tokens.max(1)).zip(norms.chunks_exact(tokens.max(1))) {
            let (head, norms) = (&mut head[candidates.clone()], &norms[candidates.clone()]);
            let written: Vec<f32> = head.iter().zip(norms).map(|(score, norm)| (score + epsilon) * norm).collect();
            let ranking = merge(&best_first(head), &best_first(&written), self.settings.first_stage);
            head.copy_from_slice(&reorder(head, &ranking));
        }
        Ok(scores)
    }
}
