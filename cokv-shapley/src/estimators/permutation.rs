//! Marginal contributions along random permutations.

use cokv_core::Coalition;
use serde::{Deserialize, Serialize};

use crate::statistics::{mean, variance};
use crate::{Design, Draw, Ends, Estimate, Estimator, FitError, Sample, SampleLog};

/// Permutation sampling (Castro, Gómez, Tejada 2009): what a player adds to those before it in a random order.
///
/// Exact at once for an additive game, and without bias for any; but a marginal contribution is the difference of two
/// coalitions that differ in one head, so that any noise in the utility drowns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permutation {
    /// Draw every permutation forth and back (Mitchell, Cooper, Frank, Holmes 2022), which cancels what changes
    /// steadily along it. The standard errors then come from the two together.
    pub antithetic: bool,
}

impl Default for Permutation {
    fn default() -> Self {
        Self { antithetic: true }
    }
}

impl Estimator for Permutation {
    fn name(&self) -> &'static str {
        "permutation"
    }

    fn design(&self, _players: usize) -> Design {
        Design::Permutations { antithetic: self.antithetic }
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let plan = log.plan();
        let Design::Permutations { antithetic } = plan.design else {
            let (estimator, design) = (self.name(), plan.design.name());
            return Err(FitError::Design { estimator, design, needed: "`permutations`" });
        };
        let needed = if antithetic { 4 } else { 2 };
        let too_few = FitError::TooFewSamples { estimator: self.name(), found: log.len(), needed };
        if log.len() < needed {
            return Err(too_few);
        }
        let ends = log.ends().ok_or(FitError::NoEnds(self.name()))?;
        // Independent units: a permutation, or the two directions of one.
        let mut units: Vec<(u64, Vec<Vec<f64>>)> = Vec::new();
        for sample in log.samples() {
            let unit = if antithetic { sample.k / 2 } else { sample.k };
            let marginals = marginals(plan.draw(sample.k), sample, ends);
            match units.last_mut() {
                Some((last, directions)) if *last == unit => directions.push(marginals),
                _ => units.push((unit, vec![marginals])),
            }
        }
        if units.len() < 2 {
            return Err(too_few);
        }
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for player in 0..plan.players {
            let of_player = |directions: &[Vec<f64>]| mean(&directions.iter().map(|m| m[player]).collect::<Vec<_>>());
            let means: Vec<f64> = units.iter().map(|(_, directions)| of_player(directions)).collect();
            values.push(mean(&means));
            errors.push((variance(&means) / (means.len() - 1) as f64).sqrt());
        }
        let spread = errors.clone();
        Ok(Estimate::unbiased(log, values, errors, &spread))
    }
}

/// What each player adds to those before it.
fn marginals(draw: Draw, sample: &Sample, ends: &Ends) -> Vec<f64> {
    let Draw { coalitions: mut prefixes, instances } = draw;
    let of_instances = |all: &[f64]| mean(&instances.iter().map(|&instance| all[instance]).collect::<Vec<_>>());
    let players = prefixes.len() + 1;
    prefixes.push(Coalition::full(players));
    let mut utilities: Vec<f64> = sample.utilities.chunks_exact(instances.len()).map(mean).collect();
    utilities.push(of_instances(&ends.full));
    let mut marginals = vec![0.0; players];
    let (mut members, mut before) = (Coalition::empty(players), of_instances(&ends.empty));
    for (prefix, utility) in prefixes.into_iter().zip(utilities) {
        for player in prefix.members().filter(|&player| !members.contains(player)) {
            marginals[player] = utility - before;
        }
        (members, before) = (prefix, utility);
    }
    marginals
}
