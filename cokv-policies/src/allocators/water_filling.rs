//! Greedy water-filling: the next token goes where it is worth most (after LU-KV, arXiv 2602.08585).

use cokv_core::{AllocationRequest, BudgetAllocator, BudgetPlan, HeadLayout, HeadScores, PolicyError};
use serde::{Deserialize, Serialize};

use super::ShapleyAda;
use super::pool::share_out;
use super::tokens::Normalise;
use super::weights::{head_scores, positive_part};
use crate::apportion::greedy;
use crate::settings::{AtLeastOne, Share};

const TAU: AtLeastOne = AtLeastOne::new(250.0).unwrap();
const FLOOR: Share = Share::new(0.0).unwrap();

/// Maximises `Σ max(score_i, 0) · ρ_i(b_i)` for the total, where `ρ` says how much of its worth a head of `b` tokens
/// retains; evenly where no score is above zero.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WaterFilling {
    /// Whose retention curve.
    pub curve: Curve,
    /// Of the common curve: tokens after which a head retains all but 1/e. 250 was the best of 60, 250 and 1000 in
    /// simulated games of 128 heads; one that is too long does harm.
    pub tau: AtLeastOne,
    /// The part of its share by score that a head keeps whatever its curve says.
    pub floor: Share,
}

/// Where retention curves come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curve {
    /// All heads retain `1 - exp(-b / tau)`.
    #[default]
    Common,
    /// Each head retains the share of the prompt's score mass that it keeps: [`ShapleyAda`].
    PerHead,
}

impl Default for WaterFilling {
    fn default() -> Self {
        Self { curve: Curve::Common, tau: TAU, floor: FLOOR }
    }
}

impl WaterFilling {
    /// What the next token retains of what is missing without it, for every count below `cap`, in units of the first.
    /// Multiplied up from one to the next, so that it cannot grow by rounding.
    fn gains(&self, cap: usize) -> Vec<f64> {
        let ratio = exp_of_minus(1.0 / self.tau.get());
        std::iter::successors(Some(1.0), |gain| Some(gain * ratio)).take(cap).collect()
    }
}

impl BudgetAllocator for WaterFilling {
    fn check(&self, layout: HeadLayout, scores: Option<&HeadScores>) -> Result<(), PolicyError> {
        head_scores("water-filling", layout, scores).map(|_| ())
    }

    fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
        let weights = positive_part(head_scores("water-filling", request.layout, request.head_scores)?.values());
        match self.curve {
            Curve::PerHead => {
                ShapleyAda { drop_lowest: 0, floor: self.floor, normalise: Normalise::Sum }.allocate(request)
            }
            Curve::Common => share_out(request, |pool| {
                let gains = self.gains(pool.cap);
                let gain = |head: usize, count: usize| weights[head] * gains[count];
                Ok(greedy(pool.total, &pool.floors(self.floor, &weights), &pool.caps(), gain))
            }),
        }
    }
}

/// exp(-x) for x in [0, 1] by its series: the same bits on every platform, which the system's `exp` does not promise.
fn exp_of_minus(x: f64) -> f64 {
    let terms = (1..=20).scan(1.0, |term, n| {
        *term *= -x / f64::from(n);
        Some(*term)
    });
    1.0 + terms.sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_is_the_exponential() {
        for x in [0.0, 1e-6, 0.004, 0.5, 1.0] {
            assert!((exp_of_minus(x) - (-x).exp()).abs() < 1e-15, "{x}");
        }
    }
}
