//! The same for every head.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use crate::apportion::even;

/// Shares the total out evenly. A remainder (of a budget in bytes) goes to the first heads, one token each, so that the
/// total is exact; what a short prompt cannot use is left over.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uniform {}

impl BudgetAllocator for Uniform {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        share_out(request, |pool| Ok(even(pool.total, &pool.caps())))
    }
}
