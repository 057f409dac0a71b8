//! The Sliced Shapley Value as its authors estimate it.

use serde::{Deserialize, Serialize};

use crate::pairs::{Pair, pairs};
use crate::statistics::{mean, variance};
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// Sliced Shapley Value (CoKV, arXiv 2502.17501, algorithm 1): the mean complementary contribution of the sampled
/// coalitions that a player is in, for each size, averaged over the sizes.
///
/// It looks at one player at a time, so that the effects of all others are noise to it: with m pairs of a size and n
/// players its reliability cannot exceed m / (m + n), even for an additive game without noise.
/// A player that no sampled coalition of a size has gets the mean of that size and an infinite standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Ssv {
    /// Which side of the pairs counts.
    pub sides: Sides,
}

/// Which side of the pairs counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sides {
    /// The sampled coalitions only, as published: E[U(S) - U(N∖S) | i in S, |S| = j], averaged over the sizes j.
    #[default]
    Left,
    /// Both, by D = E[. | i in S] - E[. | i not in S]: the mean of (n - 1)/2n D over the sizes, plus an equal share of
    /// U(everybody) - U(nobody). What all players of a size share cancels; over all sizes this is the Shapley value.
    Both,
}

impl Estimator for Ssv {
    fn name(&self) -> &'static str {
        "ssv"
    }

    fn design(&self, players: usize) -> Design {
        Design::authors(players)
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let slices = slices(log, self.name(), 2)?;
        let players = log.plan().players;
        let share = match self.sides {
            Sides::Left => 0.0,
            Sides::Both => log.ends().ok_or(FitError::NoEnds(self.name()))?.mean_difference() / players as f64,
        };
        let weight = 1.0 / slices.len() as f64;
        let mut values = vec![share; players];
        let mut errors = vec![0.0; players];
        let mut spreads = vec![0.0; players];
        for slice in &slices {
            let contributions = slice.contributions();
            let center = mean(&contributions);
            let outside_share = 1.0 - slice.size as f64 / players as f64;
            for player in 0..players {
                let (inside, outside): (Vec<&Pair>, Vec<&Pair>) =
                    slice.pairs.iter().partition(|pair| pair.coalition.contains(player));
                let (left, left_error) = mean_and_error(&inside).unwrap_or((center, f64::INFINITY));
                let (value, error, spread) = match self.sides {
                    Sides::Left => (left, left_error, outside_share * left_error),
                    Sides::Both => {
                        let (right, right_error) = mean_and_error(&outside).unwrap_or((center, f64::INFINITY));
                        let scale = 0.5 * (players - 1) as f64 / players as f64;
                        let error = scale * scale * (left_error + right_error);
                        (scale * (left - right), error, error)
                    }
                };
                values[player] += weight * value;
                errors[player] += weight * weight * error;
                spreads[player] += weight * weight * spread;
            }
        }
        let root = |squares: Vec<f64>| squares.into_iter().map(f64::sqrt).collect::<Vec<_>>();
        Ok(Estimate::unbiased(log, values, root(errors), &root(spreads)))
    }
}

/// The mean contribution of some pairs and its squared standard error; none of none.
fn mean_and_error(pairs: &[&Pair]) -> Option<(f64, f64)> {
    let contributions: Vec<f64> = pairs.iter().map(|pair| pair.contribution).collect();
    let count = contributions.len() as f64;
    match contributions.len() {
        0 => None,
        1 => Some((contributions[0], f64::INFINITY)),
        _ => Some((mean(&contributions), variance(&contributions) / (count - 1.0))),
    }
}

/// The pairs of one size.
pub(super) struct Slice {
    pub(super) size: usize,
    pub(super) pairs: Vec<Pair>,
}

impl Slice {
    pub(super) fn contributions(&self) -> Vec<f64> {
        self.pairs.iter().map(|pair| pair.contribution).collect()
    }
}

/// The pairs of every size of the design, at least `needed` of each.
pub(super) fn slices(log: &SampleLog, estimator: &'static str, needed: usize) -> Result<Vec<Slice>, FitError> {
    let plan = log.plan();
    let sizes = plan.design.balanced_sizes(plan.players);
    if sizes.is_empty() {
        let needed = "slices of fixed sizes: `slices`, `range` or `all-sizes`";
        return Err(FitError::Design { estimator, design: plan.design.name(), needed });
    }
    let all = pairs(log, estimator, needed * sizes.len())?;
    let mut slices: Vec<Slice> = sizes.into_iter().map(|size| Slice { size, pairs: Vec::new() }).collect();
    for pair in all {
        if let Some(slice) = slices.iter_mut().find(|slice| slice.size == pair.size) {
            slice.pairs.push(pair);
        }
    }
    // Shards need not be balanced as the whole is: what the worst slice lacks, all lack.
    match slices.iter().map(|slice| slice.pairs.len()).min() {
        Some(fewest) if fewest < needed => {
            let missing = (needed - fewest) * slices.len();
            Err(FitError::TooFewSamples { estimator, found: log.len(), needed: log.len() + missing })
        }
        _ => Ok(slices),
    }
}
