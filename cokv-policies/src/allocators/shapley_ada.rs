//! Shapley-weighted Ada-KV: heads compete with their tokens' scores, each as loudly as it is worth to the task.

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, HeadLayout, HeadScores, PolicyError};
use serde::{Deserialize, Serialize};

use super::pool::share_out;
use super::tokens::{Candidates, Normalise};
use super::weights::{above_border, head_scores};
use crate::settings::Share;

const FLOOR: Share = Share::new(0.0).unwrap();

/// Lets each head's token scores add up to 1, multiplies them by the head's Shapley value and takes the best tokens of all
/// heads together: adaptive to the prompt like Ada-KV, to the task like CoKV, and free at inference.
///
/// The share of its score mass that a head keeps is its retention curve `ρ_i(b)`, which is concave, so that this is the
/// optimum of `Σ φ_i ρ_i(b_i)` for the total. Equal values give
/// [`AdaKv`](super::AdaKv) across all layers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ShapleyAda {
    /// Heads whose value counts as nothing, as in [`CoKv`](super::CoKv). With 0 it is those of a value below zero, which
    /// is right for values that add up to the game's worth; CoKV's slices need a border.
    pub drop_lowest: usize,
    /// The part of its share by value that a head keeps whatever its tokens score: between 0, where tokens decide alone,
    /// and 1, where values do, as in [`CoKv`](super::CoKv).
    pub floor: Share,
    /// How token scores of different heads are made comparable.
    pub normalise: Normalise,
}

impl Default for ShapleyAda {
    fn default() -> Self {
        Self { drop_lowest: 0, floor: FLOOR, normalise: Normalise::Sum }
    }
}

impl ShapleyAda {
    /// Values as weights; everybody the same where nobody is worth anything.
    fn weights(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<Vec<f64>, PolicyError> {
        let weights = above_border(head_scores("shapley-ada", layout, scores)?.values(), self.drop_lowest)?;
        Ok(if weights.iter().all(|&weight| weight == 0.0) { vec![1.0; weights.len()] } else { weights })
    }
}

impl BudgetAllocator for ShapleyAda {
    fn check(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        self.weights(layout, scores).map(|_| ())
    }

    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let weights = self.weights(request.layout, request.head_scores)?;
        share_out(request, |pool| {
            let candidates = Candidates::of(request, 0..pool.heads)?.normalise(self.normalise, pool.base());
            Ok(candidates.weighted(&weights).best(pool.total, &pool.floors(self.floor, &weights)))
        })
    }
}
