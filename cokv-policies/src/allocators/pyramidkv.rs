//! PyramidKV (Cai et al., arXiv 2406.02069): low layers keep more than high ones.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError, Spending};
use serde::{Deserialize, Serialize};

use super::pool::{Pool, share_out};
use crate::apportion::sainte_lague;
use crate::settings::{AtLeastOne, PAPER_ROUNDING, Rounding};

const BETA: AtLeastOne = AtLeastOne::new(20.0).unwrap();

/// Budgets fall on a straight line from the first layer to the last, the same for all heads of a layer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PyramidKv {
    /// The last layer keeps the average divided by this; 20 as published.
    pub beta: AtLeastOne,
    /// `paper` rounds the slope down and overspends by up to 16 % at small budgets (KVCache-Factory); `exact` follows the
    /// same line within the total.
    pub rounding: Rounding,
}

impl Default for PyramidKv {
    fn default() -> Self {
        Self { beta: BETA, rounding: Rounding::Exact }
    }
}

impl PyramidKv {
    /// Tokens of each KV head.
    pub(super) fn counts(&self, pool: Pool, layers: usize, prompt_len: usize) -> Vec<usize> {
        let per_head = |layers: Vec<usize>| {
            let kv_heads = pool.heads / layers.len().max(1);
            layers.into_iter().flat_map(|count| std::iter::repeat_n(count, kv_heads)).collect()
        };
        match self.rounding {
            Rounding::Exact => sainte_lague(pool.total, &self.line(pool.heads, layers), &pool.caps()),
            // The reference's short prompts.
            Rounding::Paper if prompt_len < 2 * pool.base() => vec![pool.base(); pool.heads],
            Rounding::Paper => per_head(steps(pool.base(), self.beta, pool.cap, layers)),
        }
    }

    /// Where each head is on the line, the average being 1.
    fn line(&self, heads: usize, layers: usize) -> Vec<f64> {
        let last = 1.0 / self.beta.get();
        let step = 2.0 * (1.0 - last) / layers.saturating_sub(1).max(1) as f64;
        let kv_heads = heads / layers.max(1);
        let line = (0..layers).map(|layer| if layers == 1 { 1.0 } else { 2.0 - last - layer as f64 * step });
        line.flat_map(|weight| std::iter::repeat_n(weight, kv_heads)).collect()
    }
}

impl BudgetAllocator for PyramidKv {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        share_out(request, |pool| Ok(self.counts(pool, request.layout.layers, request.prompt_len)))
    }

    fn spending(&self) -> Spending {
        match self.rounding {
            Rounding::Exact => Spending::Exact,
            Rounding::Paper => Spending::MayExceed(PAPER_ROUNDING),
        }
    }
}

/// The reference's layer budgets: integer division all the way.
fn steps(base: usize, beta: AtLeastOne, cap: usize, layers: usize) -> Vec<usize> {
    let mut lowest = beta.floor_divide(base);
    let mut highest = 2 * base - lowest;
    if highest >= cap {
        highest = cap.min(2 * base);
        lowest = 2 * base - highest;
    }
    match layers {
        0 | 1 => vec![base; layers],
        _ => {
            let step = highest.saturating_sub(lowest) / (layers - 1);
            (0..layers).map(|layer| highest - layer * step).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What KVCache-Factory gives.
    #[test]
    fn published_steps() {
        let steps = |capacity: usize, layers, prompt_len: usize| steps(capacity - 8, BETA, prompt_len - 8, layers);
        assert_eq!(steps(64, 4, 200), [110, 74, 38, 2]);
        assert_eq!(steps(64, 4, 90), [82, 65, 48, 31]);
        for (capacity, layers, first, second, last, total) in [
            (128, 32, 234, 227, 17, 4016),
            (64, 32, 110, 107, 17, 2032),
            (1024, 32, 1982, 1920, 60, 32672),
            (2048, 32, 3978, 3853, 103, 65296),
            (128, 64, 234, 231, 45, 8928),
        ] {
            let budgets = steps(capacity, layers, 100_000);
            assert_eq!((budgets[0], budgets[1], budgets[layers - 1]), (first, second, last), "{capacity}");
            assert_eq!(budgets.iter().sum::<usize>(), total, "{capacity}");
        }
    }
}
