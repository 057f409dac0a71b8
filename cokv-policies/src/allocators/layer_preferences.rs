//! CAKE's layers (Qin et al., arXiv 2503.12491): in proportion to what the compressor says that they need.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::weights::{by_layer, layer_preferences, positive_part};
use crate::apportion::sainte_lague;

/// Shares out what is left beside the protected tokens in proportion to what each layer
/// [needs](cokv_core::CacheCompressor::layer_preference), the same for all heads of a layer; evenly where no layer
/// needs anything. What a layer cannot use goes to the others in proportion (in the paper evenly).
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerPreferences {}

impl BudgetAllocator for LayerPreferences {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let of_layers = positive_part(layer_preferences("layer-preferences", request)?);
        let weights = by_layer(request.layout, |layer| of_layers[layer]);
        share_out(request, |pool| Ok(sainte_lague(pool.total, &weights, &pool.caps())))
    }

    fn needs_layer_preferences(&self) -> bool {
        true
    }
}
