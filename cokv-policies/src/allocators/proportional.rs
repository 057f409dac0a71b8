//! In proportion to what a head is worth.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, HeadLayout, HeadScores, PolicyError};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::weights::{head_scores, positive_part};
use crate::apportion::{largest_remainder, sainte_lague};

/// Shares out what is left beside the protected tokens in proportion to `max(score, 0)`; evenly where no score is above
/// zero. With scores that add up to the game's worth (Shapley values) it needs no border, unlike [`CoKv`](super::CoKv)'s
/// slices.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Proportional {
    /// How shares become whole tokens.
    pub apportionment: Apportionment,
}

/// Two ways to give out whole tokens, both exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Apportionment {
    /// Sainte-Laguë's divisors: no head loses a token when the total grows.
    #[default]
    SainteLague,
    /// The largest remainders: closest to the shares, but a larger total may take a token from a head.
    LargestRemainder,
}

impl BudgetAllocator for Proportional {
    fn check(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        head_scores("proportional", layout, scores).map(|_| ())
    }

    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let scores = head_scores("proportional", request.layout, request.head_scores)?;
        let weights = positive_part(scores.values());
        share_out(request, |pool| {
            Ok(match self.apportionment {
                Apportionment::SainteLague => sainte_lague(pool.total, &weights, &pool.caps()),
                Apportionment::LargestRemainder => largest_remainder(pool.total, &weights, &pool.caps()),
            })
        })
    }
}
