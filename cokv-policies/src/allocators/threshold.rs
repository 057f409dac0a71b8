//! As much as is worth it (the form of DMS, arXiv 2506.05345, and KVzap, arXiv 2601.07891).

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, ConfigError, ConfigTable, PolicyError, Spending};
use serde::{Deserialize, Serialize};

use super::pool::share_out;

/// A head keeps the tokens whose scores are not below a threshold, besides what the compressor protects. Prompt and answer decide what
/// that comes to, not the budget, which need only pay for what is protected: compare what was kept. Where the budget pays for
/// everything, everything is kept.
///
/// Under `while_decoding`, a token is looked at when it leaves the compressor's window, as DMS does.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Threshold {
    /// The least score that is kept, in the compressor's unit.
    pub threshold: f32,
}

impl Threshold {
    /// Refuses what no score can be compared with.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        match self.threshold.is_finite() {
            true => Ok(self),
            false => Err(settings.error_at("threshold", "a threshold is a finite number")),
        }
    }
}

impl BudgetAllocator for Threshold {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let candidates = request.protected.candidates(request.prompt_len);
        let worth_it = |head: usize| {
            let scores = &request.token_scores.head(head)[candidates.clone()];
            scores.iter().filter(|&&score| score >= self.threshold).count()
        };
        share_out(request, |pool| Ok((0..pool.heads).map(worth_it).collect()))
    }

    fn spending(&self) -> Spending {
        Spending::MayExceed("scores decide what is kept, whatever the budget is")
    }
}

#[cfg(test)]
mod tests {
    use cokv_core::{HeadLayout, Protected, TokenScores};

    use super::*;

    /// The case that is worked out by hand: a window of 3, -4, six tokens.
    #[test]
    fn what_is_below_the_threshold_goes_once_it_has_left_the_window() {
        let layout = HeadLayout::new(1, 1, 1, 2).unwrap();
        let mut scores = TokenScores::with_capacity(layout, 6);
        scores.push_layer(&[-1.0, -5.0, -3.0, -6.0, -7.0, -2.0]);
        let request = AllocationRequest {
            layout,
            prompt_len: 6,
            total: 4,
            protected: Protected { sinks: 0, window: 3 },
            token_scores: &scores,
            head_scores: None,
        };
        let plan = Threshold { threshold: -4.0 }.allocate(&request).unwrap();
        assert_eq!(plan.kept(), [5]);
        let kept = cokv_core::select::select(&scores, &plan, request.protected);
        assert_eq!(kept.heads[0].positions(6), [0, 2, 3, 4, 5]);
    }
}
