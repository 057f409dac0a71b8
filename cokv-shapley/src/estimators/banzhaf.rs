//! The Banzhaf value.

use serde::{Deserialize, Serialize};

use crate::pairs::pairs;
use crate::statistics::{mean, variance};
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// Maximum sample reuse (Wang, Jia, "Data Banzhaf", AISTATS 2023): the mean utility of random halves with a player less
/// that of random halves without it. With pairs, every sample has one of each.
///
/// The Banzhaf value weighs all coalitions alike, so that nearly all of it is about half of the heads, and it does not
/// sum to U(everybody) - U(nobody).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Banzhaf {}

impl Estimator for Banzhaf {
    fn name(&self) -> &'static str {
        "banzhaf"
    }

    fn design(&self, _players: usize) -> Design {
        Design::Halves
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let complete = match log.plan().design {
            Design::Halves => false,
            Design::Exhaustive => true,
            ref design => {
                let needed = "`halves` or `exhaustive`";
                return Err(FitError::Design { estimator: self.name(), design: design.name(), needed });
            }
        };
        let needed = log.plan().samples().filter(|_| complete).map_or(2, |samples| samples as usize);
        let pairs = pairs(log, self.name(), needed)?;
        let (mut values, mut errors) = (Vec::new(), Vec::new());
        for player in 0..log.plan().players {
            let marginals: Vec<f64> = pairs.iter().map(|pair| pair.sign(player) * pair.contribution).collect();
            values.push(mean(&marginals));
            errors.push((variance(&marginals) / (marginals.len() - 1).max(1) as f64).sqrt());
        }
        if complete {
            return Ok(Estimate::exact(log, values));
        }
        let spread = errors.clone();
        Ok(Estimate::unbiased(log, values, errors, &spread))
    }
}
