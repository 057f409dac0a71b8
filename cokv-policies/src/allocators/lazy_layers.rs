//! SimLayerKV's layers (Zhang et al., arXiv 2410.13846): lazy ones keep the prompt's ends, all others the prompt.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError, Spending};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::weights::layer_preferences;
use crate::settings::Share;

const THRESHOLD: Share = Share::new(0.9).unwrap();

/// A layer is lazy where what it [needs](cokv_core::CacheCompressor::layer_preference) is below 1 minus the threshold:
/// it keeps what the compressor protects. Any other keeps the whole prompt. The prompt decides what that comes to, not
/// the budget, which need only pay for what is protected: compare what was kept.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LazyLayers {
    /// Share of the attention above which a layer that pays it to the prompt's ends is lazy. Published: Llama-3 0.9,
    /// Qwen 0.85, Mistral 0.8, Llama-2 0.65; at 1 no layer is.
    pub threshold: Share,
}

impl Default for LazyLayers {
    fn default() -> Self {
        Self { threshold: THRESHOLD }
    }
}

impl BudgetAllocator for LazyLayers {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let preferences = layer_preferences("lazy-layers", request)?;
        share_out(request, |pool| {
            let lazy = |preference: f64| preference < 1.0 - self.threshold.get();
            let kept = |head: usize| if lazy(preferences[request.layout.place(head).0]) { 0 } else { pool.cap };
            Ok((0..pool.heads).map(kept).collect())
        })
    }

    fn needs_layer_preferences(&self) -> bool {
        true
    }

    fn spending(&self) -> Spending {
        Spending::MayExceed("lazy layers keep the prompt's ends and all others the prompt, whatever the budget is")
    }
}
