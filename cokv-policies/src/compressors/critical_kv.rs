//! CriticalKV (Feng et al., arXiv 2502.03805): a second stage that also looks at what a token would write.

use cokv_core::config::Choice;
use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, HeadSelection, LayerView, Named, ObservationRequest, Pairs,
    PolicyError, Protected, Replay,
};
use serde::{Deserialize, Serialize};

use super::group::group_mean;
use super::ranking::{best_first, merge, reorder};
use crate::settings::Share;

const FIRST_STAGE: Share = Share::new(0.5).unwrap();

/// Keeps the best of another compressor with a part of the budget, and with the rest those whose
/// `(score + epsilon) · ‖W_o v‖₁` is highest, mean over the group.
///
/// A head's scores keep their values and only change places, so that allocators see the other compressor's: under Ada-KV
/// this is CriticalAdaKV.
#[derive(Debug, Serialize)]
pub struct CriticalKv {
    /// Whose scores are refined.
    pub base: Named<dyn CacheCompressor>,
    /// Part of the budget, beside the protected tokens, that follows the base scores alone; a half as published.
    pub first_stage: Share,
    /// Keeps a token of a large value in play that nobody attends to; 0.0001 as published.
    pub epsilon: f64,
}

/// The settings beside the base.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    first_stage: Share,
    epsilon: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { first_stage: FIRST_STAGE, epsilon: 1e-4 }
    }
}

impl CriticalKv {
    /// Reads the settings and the base compressor, one of this crate's: `base = "snapkv"` (the default) or a table with a
    /// name.
    pub fn read(settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        let mut rest = settings.clone();
        let base = rest.take_choice("base")?.unwrap_or_else(|| Choice::named("snapkv", settings));
        let Settings { first_stage, epsilon } = rest.read()?;
        Ok(Self { base: crate::registry().compressor(&base)?, first_stage, epsilon })
    }
}

impl CacheCompressor for CriticalKv {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        self.base.observations(frame).union(ObservationRequest { value_output_norms: true, ..Default::default() })
    }

    fn protected(&self, frame: Frame) -> Protected {
        self.base.protected(frame)
    }

    fn evicts(&self) -> bool {
        self.base.evicts()
    }

    fn replay(&self) -> Option<Replay> {
        self.base.replay()
    }

    fn follows_budget(&self) -> bool {
        self.base.follows_budget()
    }

    fn rewrites(&self) -> bool {
        self.base.rewrites()
    }

    fn adds_biases(&self) -> bool {
        self.base.adds_biases()
    }

    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        self.base.rewrite(layer, kept)
    }

    fn needs_question(&self) -> bool {
        self.base.needs_question()
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let tokens = layer.prompt_len;
        let mut scores = self.base.score(layer)?;
        let norms = layer.recorded("value output norms", layer.value_output_norms)?;
        let norms = group_mean(layer.layout, norms, tokens);
        let epsilon = self.epsilon as f32;
        let candidates = self.base.protected(layer.frame).candidates(tokens);
        for (head, norms) in scores.chunks_exact_mut(tokens.max(1)).zip(norms.chunks_exact(tokens.max(1))) {
            let (head, norms) = (&mut head[candidates.clone()], &norms[candidates.clone()]);
            let written: Vec<f32> = head.iter().zip(norms).map(|(score, norm)| (score + epsilon) * norm).collect();
            let ranking = merge(&best_first(head), &best_first(&written), self.first_stage);
            head.copy_from_slice(&reorder(head, &ranking));
        }
        Ok(scores)
    }
}
