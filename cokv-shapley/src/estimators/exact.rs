//! The Shapley value from all coalitions.

use serde::{Deserialize, Serialize};

use crate::exact::ShapleySum;
use crate::statistics::mean;
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// The exact Shapley value, from a log of all coalitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exact {}

impl Estimator for Exact {
    fn name(&self) -> &'static str {
        "exact"
    }

    fn design(&self, _players: usize) -> Design {
        Design::Exhaustive
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let (estimator, plan) = (self.name(), log.plan());
        let Some(needed) = plan.samples().filter(|_| plan.design == Design::Exhaustive) else {
            return Err(FitError::Design { estimator, design: plan.design.name(), needed: "`exhaustive`" });
        };
        if (log.len() as u64) < needed {
            return Err(FitError::TooFewSamples { estimator, found: log.len(), needed: needed as usize });
        }
        let mut sum = ShapleySum::new(plan.players);
        for sample in log.samples() {
            let coalitions = plan.draw(sample.k).coalitions;
            for (coalition, utilities) in coalitions.iter().zip(sample.utilities.chunks_exact(plan.instances)) {
                sum.add(coalition, mean(utilities));
            }
        }
        Ok(Estimate::exact(log, sum.values()))
    }
}
