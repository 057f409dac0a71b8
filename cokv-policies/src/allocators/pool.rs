//! What there is to share out once every head keeps its sinks and its window.

use cokv_core::{AllocationRequest, BudgetPlan, PolicyError};

use crate::apportion::sainte_lague;
use crate::settings::Share;

/// Tokens beside the protected ones.
#[derive(Clone, Copy, Debug)]
pub struct Pool {
    /// KV heads.
    pub heads: usize,
    /// Tokens for all heads together, fewer than `heads * cap`.
    pub total: usize,
    /// What one head can use: the prompt without its protected tokens.
    pub cap: usize,
}

impl Pool {
    /// One cap per head.
    pub fn caps(&self) -> Vec<usize> {
        vec![self.cap; self.heads]
    }

    /// Tokens of a head if all had the same: the `base_capacity - window` of the papers.
    pub fn base(&self) -> usize {
        self.total / self.heads
    }

    /// The even share of a head: the base, and a token of the remainder for each of the first heads.
    pub fn even_share(&self, head: usize) -> usize {
        self.base() + usize::from(head < self.total % self.heads)
    }

    /// A part of what every head gets in proportion to its weight, rounded down; of even shares where weights are equal.
    pub fn floors(&self, floor: Share, weights: &[f64]) -> Vec<usize> {
        sainte_lague(self.total, weights, &self.caps()).into_iter().map(|share| floor.of(share)).collect()
    }
}

/// Lets `share` say what each head keeps beside its protected tokens; what is above the cap is cut off. A total that pays
/// for the whole prompt gives it to everyone.
pub fn share_out(
    request: &AllocationRequest<'_>,
    share: impl FnOnce(Pool) -> Result<Vec<usize>, PolicyError>,
) -> Result<BudgetPlan, PolicyError> {
    let (heads, prompt_len) = (request.layout.heads(), request.prompt_len);
    let protected = request.protected_tokens()?;
    let cap = prompt_len - protected;
    if heads.saturating_mul(prompt_len) <= request.total {
        return Ok(BudgetPlan::new(vec![prompt_len; heads]));
    }
    let counts = share(Pool { heads, total: request.total - heads * protected, cap })?;
    Ok(BudgetPlan::new(counts.into_iter().map(|count| protected + count.min(cap)).collect()))
}
