//! An allocator: the later half of the layers gets more than the earlier one.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError};
use cokv_policies::apportion::sainte_lague;
use serde::{Deserialize, Serialize};

/// Shares out what is left beside the protected tokens: a head of the later half of the layers counts `weight` times.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LateLayers {
    /// How much more a head of the later half counts; 1 is uniform.
    pub weight: f64,
}

impl Default for LateLayers {
    fn default() -> Self {
        Self { weight: 2.0 }
    }
}

impl BudgetAllocator for LateLayers {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let layout = request.layout;
        // What every head keeps whatever its budget, and an error where the total does not pay for it.
        let protected = request.protected_tokens()?;
        let heads = layout.heads();
        let weights: Vec<f64> = (0..heads)
            .map(|head| if head / layout.kv_heads >= layout.layers / 2 { self.weight } else { 1.0 })
            .collect();
        let most = request.prompt_len - protected;
        let pool = request.total.saturating_sub(protected * heads).min(most * heads);
        let extra = sainte_lague(pool, &weights, &vec![most; heads]);
        Ok(BudgetPlan::new(extra.into_iter().map(|tokens| protected + tokens).collect()))
    }
}
