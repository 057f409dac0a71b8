//! What is lost without one player.

use serde::{Deserialize, Serialize};

use crate::statistics::mean;
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// U(N) - U(N∖{i}): cheap and exact, but blind to what heads achieve together. Of two heads that can replace each
/// other, neither is worth anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaveOneOut {}

impl Estimator for LeaveOneOut {
    fn name(&self) -> &'static str {
        "leave-one-out"
    }

    fn design(&self, _players: usize) -> Design {
        Design::LeaveOneOut
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let (estimator, plan) = (self.name(), log.plan());
        if plan.design != Design::LeaveOneOut {
            return Err(FitError::Design { estimator, design: plan.design.name(), needed: "`leave-one-out`" });
        }
        if log.len() < plan.players {
            return Err(FitError::TooFewSamples { estimator, found: log.len(), needed: plan.players });
        }
        let full = mean(&log.ends().ok_or(FitError::NoEnds(estimator))?.full);
        Ok(Estimate::exact(log, log.samples().map(|sample| full - mean(&sample.utilities)).collect()))
    }
}
