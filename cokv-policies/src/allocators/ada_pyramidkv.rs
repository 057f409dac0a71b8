//! Ada-PyramidKV (Feng et al., arXiv 2407.11550): PyramidKV between the layers, Ada-KV inside each.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError, Spending};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::tokens::Normalise;
use super::{AdaKv, PyramidKv, Scope};
use crate::settings::{AtLeastOne, Rounding, Share};

/// Each layer's heads compete for what the pyramid gives their layer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaPyramidKv {
    /// As in [`PyramidKv`].
    pub beta: AtLeastOne,
    /// As in [`AdaKv`].
    pub floor: Share,
    /// As in [`AdaKv`].
    pub normalise: Normalise,
    /// As in both.
    pub rounding: Rounding,
}

impl Default for AdaPyramidKv {
    fn default() -> Self {
        let (ada, pyramid) = (AdaKv::default(), PyramidKv::default());
        Self { beta: pyramid.beta, floor: ada.floor, normalise: ada.normalise, rounding: ada.rounding }
    }
}

impl AdaPyramidKv {
    fn ada(&self) -> AdaKv {
        AdaKv { floor: self.floor, scope: Scope::Layer, normalise: self.normalise, rounding: self.rounding }
    }

    fn pyramid(&self) -> PyramidKv {
        PyramidKv { beta: self.beta, rounding: self.rounding }
    }
}

impl BudgetAllocator for AdaPyramidKv {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        share_out(request, |pool| {
            let pyramid = self.pyramid().counts(pool, request.layout.layers, request.prompt_len);
            self.ada().compete_by_layer(request, |head| pyramid[head].min(pool.cap))
        })
    }

    fn spending(&self) -> Spending {
        self.ada().spending()
    }
}
