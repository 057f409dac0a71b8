//! The same for every head.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError};
use serde::Deserialize;

/// Shares the total out evenly. A remainder (of a budget in bytes) goes to the first heads, one token each, so that the
/// total is exact; what a short prompt cannot use is left over.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uniform {}

impl BudgetAllocator for Uniform {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let heads = request.layout.heads();
        let (each, remainder) = (request.total / heads, request.total % heads);
        let kept = (0..heads).map(|head| (each + usize::from(head < remainder)).min(request.prompt_len));
        Ok(BudgetPlan::new(kept.collect()))
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::{HeadLayout, Protected, TokenScores};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_total_is_exact_up_to_the_prompt(heads in 1usize..50, prompt_len in 0usize..500, total in 0usize..40_000) {
            let layout = HeadLayout::new(heads, 1, 1, 2).unwrap();
            let plan = Uniform {}.allocate(&AllocationRequest {
                layout,
                prompt_len,
                total,
                protected: Protected::default(),
                token_scores: &TokenScores::with_capacity(layout, prompt_len),
                head_scores: None,
            }).unwrap();
            prop_assert_eq!(plan.total(), total.min(heads * prompt_len));
            prop_assert!(plan.kept().iter().max().unwrap() - plan.kept().iter().min().unwrap() <= 1);
        }
    }
}
