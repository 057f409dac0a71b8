//! PerLayer (kvpress's PerLayerCompression): a share for each layer, written down.

use cokv_core::{
    AllocationRequest, BudgetAllocator, BudgetPlan, ConfigError, ConfigTable, HeadLayout, HeadScores, PolicyError,
};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::weights::positive_part;
use crate::apportion::sainte_lague;

/// Shares out what is left beside the protected tokens in proportion to numbers that are listed layer by layer, the same for all heads
/// of a layer. They are relative to each other, so that a list serves every budget: `[2, 1]` gives the first layer twice as much as
/// each of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerLayer {
    /// One for each layer, at least 0; the last holds for all layers behind it too.
    pub shares: Vec<f64>,
}

impl Default for PerLayer {
    fn default() -> Self {
        Self { shares: vec![1.0] }
    }
}

impl PerLayer {
    /// Refuses shares that nothing can be shared out by.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        if let Some(unfit) = self.shares.iter().find(|share| !(**share >= 0.0 && share.is_finite())) {
            return Err(settings.error_at("shares", format!("{unfit} is no share: it must be at least 0 and finite")));
        }
        match self.shares.is_empty() {
            true => {
                Err(settings
                    .error_at("shares", "per-layer needs a share for the first layer at least: shares = [2, 1]"))
            }
            false => Ok(self),
        }
    }
}

impl BudgetAllocator for PerLayer {
    fn check(&self, layout: HeadLayout, _head_scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        let (listed, layers) = (self.shares.len(), layout.layers);
        match listed > layers {
            true => Err(PolicyError::TooManyLayers { setting: "shares", listed, layers }),
            false => Ok(()),
        }
    }

    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        self.check(request.layout, request.head_scores)?;
        let listed = positive_part(&self.shares);
        let weight = |head: usize| listed[request.layout.place(head).0.min(listed.len() - 1)];
        let weights: Vec<f64> = (0..request.layout.heads()).map(weight).collect();
        share_out(request, |pool| Ok(sainte_lague(pool.total, &weights, &pool.caps())))
    }
}
