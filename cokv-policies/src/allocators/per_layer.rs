//! PerLayer (kvpress's PerLayerCompression): a share for each layer, written down.

use cokv_core::{
    AllocationRequest, BudgetAllocator, BudgetPlan, ConfigError, ConfigTable, HeadLayout, HeadScores, PolicyError,
};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::weights::{by_layer, positive_part};
use crate::apportion::sainte_lague;
use crate::settings::AtLeastZero;

const EVEN: AtLeastZero = AtLeastZero::new(1.0).unwrap();

/// Shares out what is left beside the protected tokens in proportion to numbers that are listed layer by layer, the
/// same for all heads of a layer. They are relative to each other, so that a list serves every budget: `[2, 1]` gives
/// the first layer twice as much as each of the others.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PerLayer {
    /// One for each layer, at least 0; the last holds for all layers behind it too.
    pub shares: Vec<AtLeastZero>,
}

impl Default for PerLayer {
    fn default() -> Self {
        Self { shares: vec![EVEN] }
    }
}

impl PerLayer {
    /// Refuses a list of nothing.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
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
        let listed = positive_part(&self.shares.iter().map(|share| share.get()).collect::<Vec<_>>());
        let weights = by_layer(request.layout, |layer| listed.get(layer).or(listed.last()).copied().unwrap_or(0.0));
        share_out(request, |pool| Ok(sainte_lague(pool.total, &weights, &pool.caps())))
    }
}
