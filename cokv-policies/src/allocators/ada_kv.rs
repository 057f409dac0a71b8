//! Ada-KV (Feng et al., arXiv 2407.11550, algorithm 1): heads compete for a pool with their tokens' scores.

use std::ops::Range;

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, PolicyError, Spending};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::tokens::{Candidates, Normalise};
use crate::settings::{PAPER_ROUNDING, Rounding, Share};

const FLOOR: Share = Share::new(0.2).unwrap();

/// The best tokens of several heads together decide how many each keeps; every head is sure of a part of its even share.
///
/// The published form works layer by layer with `floor = 0.2` (its scripts for models with grouped queries). Its author
/// tried all layers together, found it better, and dropped it because all layers' caches had to stay alive; here they do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AdaKv {
    /// The paper's α: the part of its even share that a head keeps whatever its scores are.
    pub floor: Share,
    /// Which heads share a pool.
    pub scope: Scope,
    /// How scores of different heads are made comparable.
    pub normalise: Normalise,
    /// `paper` mixes the winners of the competition with the floor and rounds; `exact` gives the floor first and lets the
    /// heads compete for the rest (kvpress).
    pub rounding: Rounding,
}

/// Heads that compete with each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Those of a layer.
    #[default]
    Layer,
    /// All.
    Model,
}

impl Default for AdaKv {
    fn default() -> Self {
        Self { floor: FLOOR, scope: Scope::Layer, normalise: Normalise::None, rounding: Rounding::Exact }
    }
}

impl AdaKv {
    /// Lets the heads of each layer compete for what their shares come to.
    pub(super) fn compete_by_layer(
        &self,
        request: &AllocationRequest<'_>,
        share: impl Fn(usize) -> usize,
    ) -> Result<Vec<usize>, PolicyError> {
        let kv_heads = request.layout.kv_heads;
        let layers = (0..request.layout.layers).map(|layer| layer * kv_heads..(layer + 1) * kv_heads);
        let counts: Result<Vec<_>, _> = layers.map(|heads| self.compete(request, heads, &share)).collect();
        Ok(counts?.concat())
    }

    fn compete(
        &self,
        request: &AllocationRequest<'_>,
        heads: Range<usize>,
        share: impl Fn(usize) -> usize,
    ) -> Result<Vec<usize>, PolicyError> {
        let shares: Vec<usize> = heads.clone().map(share).collect();
        let base = shares.iter().copied().min().unwrap_or(0);
        let floors: Vec<usize> = shares.iter().map(|&share| self.floor.of(share)).collect();
        let candidates = Candidates::of(request, heads)?.normalise(self.normalise, base);
        Ok(match self.rounding {
            Rounding::Exact => candidates.best(shares.iter().sum(), &floors),
            Rounding::Paper => {
                let winners = candidates.best(base * shares.len(), &vec![0; shares.len()]);
                winners.into_iter().map(|winners| mixed(winners, base, self.floor)).collect()
            }
        })
    }
}

impl BudgetAllocator for AdaKv {
    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        share_out(request, |pool| match self.scope {
            Scope::Model => self.compete(request, 0..pool.heads, |head| pool.even_share(head)),
            Scope::Layer => self.compete_by_layer(request, |head| pool.even_share(head)),
        })
    }

    fn spending(&self) -> Spending {
        match self.rounding {
            Rounding::Exact => Spending::Exact,
            Rounding::Paper => Spending::MayExceed(PAPER_ROUNDING),
        }
    }
}

/// The reference's `round(winners * (1 - alpha) + int(base * alpha))`, half to even.
fn mixed(winners: usize, base: usize, floor: Share) -> usize {
    (winners as f64 * (1.0 - floor.get()) + floor.of(base) as f64).round_ties_even() as usize
}
