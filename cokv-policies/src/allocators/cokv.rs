//! CoKV (arXiv 2502.17501): in proportion to the normalised Sliced Shapley Value.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, HeadLayout, HeadScores, PolicyError, Spending};
use serde::{Deserialize, Serialize};

use super::pool::{Pool, share_out};
use super::weights::{above_border, head_scores};
use crate::apportion::{sainte_lague, sainte_lague_from};
use crate::settings::{PAPER_ROUNDING, Rounding};

/// Leaves the lowest heads their protected tokens alone and shares the rest out in proportion to what a score has above
/// the highest of theirs: `c_i = B · NSV_i / Σ NSV + s`, where `NSV_i` is `max(SSV_i - min^α, 0)` up to a factor. Evenly
/// where no score is above that border. Shifting or scaling all scores changes nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoKv {
    /// Heads that get nothing: the paper's α, chosen per task from 1, 5, 10, 15, 20, 30, 40 for models of 256 heads. With 0
    /// the border is a score of zero.
    pub drop_lowest: usize,
    /// `paper` rounds every head down and loses up to a token each.
    pub rounding: Rounding,
    /// Whether tokens beyond the end of the prompt are given to other heads; the paper's code loses them. `exact` always
    /// passes them on.
    pub cap: bool,
}

impl Default for CoKv {
    fn default() -> Self {
        Self { drop_lowest: 20, rounding: Rounding::Exact, cap: false }
    }
}

impl CoKv {
    fn weights(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<Vec<f64>, PolicyError> {
        above_border(head_scores("cokv", layout, scores)?.values(), self.drop_lowest)
    }
}

impl BudgetAllocator for CoKv {
    fn check(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        self.weights(layout, scores).map(|_| ())
    }

    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let weights = self.weights(request.layout, request.head_scores)?;
        share_out(request, |pool| {
            Ok(match (self.rounding, self.cap) {
                (Rounding::Exact, _) => sainte_lague(pool.total, &weights, &pool.caps()),
                (Rounding::Paper, false) => rounded_down(pool, &weights),
                (Rounding::Paper, true) => pass_on(pool, &weights, rounded_down(pool, &weights)),
            })
        })
    }

    fn spending(&self) -> Spending {
        match self.rounding {
            Rounding::Exact => Spending::Exact,
            Rounding::Paper => Spending::AtMost(PAPER_ROUNDING),
        }
    }
}

/// The reference's `int(s / sum(s) * pool)` in 32 bits.
fn rounded_down(pool: Pool, weights: &[f64]) -> Vec<usize> {
    let tokens = (pool.base() * pool.heads) as f32;
    let sum: f32 = weights.iter().map(|&weight| weight as f32).sum();
    let share = |&weight: &f64| if sum > 0.0 { (weight as f32 / sum * tokens) as usize } else { pool.base() };
    weights.iter().map(share).collect()
}

/// Cuts the counts at the cap and goes on giving out what was cut off, in proportion.
fn pass_on(pool: Pool, weights: &[f64], counts: Vec<usize>) -> Vec<usize> {
    let within: Vec<usize> = counts.iter().map(|&count| count.min(pool.cap)).collect();
    let spent = counts.iter().sum::<usize>().min(pool.total);
    sainte_lague_from(&within, spent, weights, &pool.caps())
}
