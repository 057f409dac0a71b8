//! HeadKV (Fu et al., arXiv 2410.19258): a common minimum, and a pool shared out by retrieval scores.

use cokv_core::{
    AllocationRequest, BudgetAllocator, BudgetPlan, ConfigError, ConfigTable, Gqa, HeadLayout, HeadScores, PolicyError,
    Spending,
};
use serde::{Deserialize, Serialize};

use super::pool::{Pool, share_out};
use super::weights::{head_scores, positive_part};
use crate::apportion::sainte_lague;
use crate::settings::{AtLeastOne, PAPER_ROUNDING, Rounding};

const BETA: AtLeastOne = AtLeastOne::new(1.01).unwrap();

/// Every head gives `base // beta` tokens of its even share into a pool, which is shared out in proportion to
/// `max(score, 0)`; evenly where no score is above zero.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadKv {
    /// The closer to 1, the more is in the pool. Published runs choose the best of 1.005, 1.01, 1.1, 1.2, 1.5, 2, 5 and 10.
    pub beta: AtLeastOne,
    /// `paper` rounds every head by itself and cuts it off at the end of the prompt.
    pub rounding: Rounding,
    /// What the budget counts. `per-query-head` is the published form: the budget is that of a query head, its scores must
    /// be known one by one, and a KV head keeps what its group would keep together, which is several times the total. It
    /// goes with `rounding = "paper"` alone.
    pub gqa: Gqa,
}

impl Default for HeadKv {
    fn default() -> Self {
        Self { beta: BETA, rounding: Rounding::Exact, gqa: Gqa::PerKvHead }
    }
}

impl HeadKv {
    /// Refuses settings that contradict each other.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        if (self.gqa, self.rounding) == (Gqa::PerQueryHead, Rounding::Exact) {
            let message = "headkv with gqa = \"per-query-head\" spends several times the total, as published: write \
                           rounding = \"paper\" beside it";
            return Err(settings.error_at("rounding", message));
        }
        Ok(self)
    }

    /// One weight per head of the kind that the budget counts.
    fn weights(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<Vec<f64>, PolicyError> {
        let scores = head_scores("headkv", layout, scores)?;
        match self.gqa {
            Gqa::PerKvHead => Ok(positive_part(scores.values())),
            Gqa::PerQueryHead => scores.query_heads().map(positive_part).ok_or_else(|| {
                let message = "`headkv` with gqa = \"per-query-head\" needs a score for every query head, and these are \
                               for KV heads";
                PolicyError::MissingScores(message.into())
            }),
        }
    }

    /// The published shares, not yet rounded: one per weight.
    fn shares(&self, base: usize, weights: &[f64]) -> Vec<f64> {
        let from_each = self.beta.floor_divide(base);
        let (pool, minimum) = ((from_each * weights.len()) as f64, (base - from_each) as f64);
        let sum: f64 = weights.iter().sum();
        let share = |weight: &f64| if sum > 0.0 { weight / sum } else { 1.0 / weights.len() as f64 };
        weights.iter().map(|weight| share(weight) * pool + minimum).collect()
    }

    fn exact(&self, pool: Pool, weights: &[f64]) -> Vec<usize> {
        let minimum = |head: usize| pool.even_share(head) - self.beta.floor_divide(pool.even_share(head));
        let minima: Vec<usize> = (0..pool.heads).map(minimum).collect();
        let room: Vec<usize> = minima.iter().map(|minimum| pool.cap - minimum).collect();
        let shared = sainte_lague(pool.total - minima.iter().sum::<usize>(), weights, &room);
        minima.iter().zip(shared).map(|(minimum, shared)| minimum + shared).collect()
    }
}

impl BudgetAllocator for HeadKv {
    fn check(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        self.weights(layout, scores).map(|_| ())
    }

    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let weights = self.weights(request.layout, request.head_scores)?;
        let group = request.layout.group();
        let protected = request.protected_tokens()?;
        share_out(request, |pool| {
            Ok(match (self.gqa, self.rounding) {
                (Gqa::PerKvHead, Rounding::Exact) => self.exact(pool, &weights),
                // CoKV's port of HeadKV to KV heads, which rounds down.
                (Gqa::PerKvHead, Rounding::Paper) => {
                    self.shares(pool.base(), &weights).into_iter().map(|share| share as usize).collect()
                }
                (Gqa::PerQueryHead, _) => {
                    let shares = self.shares(pool.base(), &weights);
                    // Every query head has protected tokens of its own; those of one are the KV head's.
                    let kept = |share: &f64| (share.round_ties_even() as usize).min(pool.cap) + protected;
                    shares.chunks(group).map(|group| group.iter().map(kept).sum::<usize>() - protected).collect()
                }
            })
        })
    }

    fn spending(&self) -> Spending {
        match (self.gqa, self.rounding) {
            (Gqa::PerQueryHead, _) => Spending::MayExceed("every query head of a group keeps tokens of its own"),
            (Gqa::PerKvHead, Rounding::Paper) => Spending::AtMost(PAPER_ROUNDING),
            (Gqa::PerKvHead, Rounding::Exact) => Spending::Exact,
        }
    }

    fn gqa(&self) -> Gqa {
        self.gqa
    }
}
