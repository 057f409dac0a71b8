//! H2O (Zhang et al., arXiv 2306.14048): heavy hitters, tokens that all queries together attend to most.

use cokv_core::{CacheCompressor, Frame, LayerView, ObservationRequest, PolicyError, Protected};
use serde::{Deserialize, Serialize};

use super::group::group_mean;
use super::ranking::{best_first, merge, reorder};
use crate::settings::Share;

const NO_SHARE: Share = Share::new(0.0).unwrap();

/// Scores a token by the attention that it received from all queries of the prompt, mean over its group.
///
/// The defaults are KVCache-Factory's. The paper's even split of the budget into heavy and recent tokens is
/// `window = 0, recent_share = 0.5`; kvpress ("observed attention") has `window = 0, mean_over_queries = true`. All decide
/// once, after the prompt; the paper also evicts while decoding.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct H2o {
    /// Latest tokens that are always kept.
    pub window: usize,
    /// Part of the rest of the budget that goes to the next latest tokens.
    pub recent_share: Share,
    /// Divides the sum by the number of queries that can see the token, which are fewer the later it comes.
    pub mean_over_queries: bool,
}

impl Default for H2o {
    fn default() -> Self {
        Self { window: 8, recent_share: NO_SHARE, mean_over_queries: false }
    }
}

impl CacheCompressor for H2o {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { column_sums: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let tokens = layer.prompt_len;
        let mut scores = group_mean(layer.layout, layer.recorded("column sums", layer.column_sums)?, tokens);
        let candidates = self.protected(layer.frame).candidates(tokens);
        for head in scores.chunks_exact_mut(tokens.max(1)) {
            if self.mean_over_queries {
                head.iter_mut().enumerate().for_each(|(token, sum)| *sum /= (tokens - token) as f32);
            }
            if self.recent_share != NO_SHARE {
                let heavy = &mut head[candidates.clone()];
                let latest: Vec<usize> = candidates.clone().rev().collect();
                let reordered = reorder(heavy, &merge(&latest, &best_first(heavy), self.recent_share));
                heavy.copy_from_slice(&reordered);
            }
        }
        Ok(scores)
    }
}
