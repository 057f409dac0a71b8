//! Stratified complementary contributions.

use serde::{Deserialize, Serialize};

use crate::pairs::pairs;
use crate::statistics::{mean, variance};
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// Complementary contributions in strata (Zhang, Sun, Liu, Xiong, Pei, Ren, SIGMOD 2023): the mean of U(S) - U(N∖S)
/// for every player i in S and every size j of S, averaged over all sizes from 1 to n.
/// A pair of size j also is one of size n - j, seen from its complement; the stratum of size n is U(N) - U(∅).
///
/// There are n² strata. One that no pair has reached yet gets the mean of its size over all players, which says that
/// the player is an average one. Standard errors come from the variance within the strata of a size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Complementary {}

impl Estimator for Complementary {
    fn name(&self) -> &'static str {
        "complementary"
    }

    fn design(&self, _players: usize) -> Design {
        Design::AllSizes
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let players = log.plan().players;
        let design = &log.plan().design;
        if !(1..players).eq(design.balanced_sizes(players)) {
            let needed = "pairs of all sizes: `all-sizes`";
            return Err(FitError::Design { estimator: self.name(), design: design.name(), needed });
        }
        let pairs = pairs(log, self.name(), 2 * (players - 1))?;
        let ends = log.ends().ok_or(FitError::NoEnds(self.name()))?;
        // [size][player]
        let mut strata: Vec<Vec<Vec<f64>>> = vec![vec![Vec::new(); players]; players];
        for pair in &pairs {
            (0..players).for_each(|player| {
                if pair.coalition.contains(player) {
                    strata[pair.size][player].push(pair.contribution);
                } else {
                    strata[players - pair.size][player].push(-pair.contribution);
                }
            });
        }
        let weight = 1.0 / players as f64;
        let mut values = vec![weight * ends.mean_difference(); players];
        let (mut errors, mut spreads) = (vec![0.0; players], vec![0.0; players]);
        for (size, strata) in strata.iter().enumerate().skip(1) {
            let center = mean(&strata.concat());
            let squares: f64 = strata.iter().filter(|s| !s.is_empty()).map(|s| s.len() as f64 * variance(s)).sum();
            let degrees: usize = strata.iter().map(|stratum| stratum.len().saturating_sub(1)).sum();
            let noise = if degrees == 0 { f64::INFINITY } else { squares / degrees as f64 };
            for (player, stratum) in strata.iter().enumerate() {
                values[player] += weight * if stratum.is_empty() { center } else { mean(stratum) };
                let error = weight * weight * noise / stratum.len().max(1) as f64;
                errors[player] += error;
                // Players share the samples that they are in together.
                spreads[player] += error * (1.0 - size as f64 / players as f64);
            }
        }
        let root = |squares: Vec<f64>| squares.into_iter().map(f64::sqrt).collect::<Vec<_>>();
        Ok(Estimate::unbiased(log, values, root(errors), &root(spreads)))
    }
}
