//! What an estimator says, and the seam that all estimators share.

use std::fmt::Debug;

use thiserror::Error;

use crate::statistics::{mean, variance};
use crate::{Design, SampleLog};

/// The value of every player, and how sure the estimator is.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// One per player, in units of utility.
    pub values: Vec<f64>,
    /// Standard error of each value; infinite where the samples cannot tell.
    pub standard_errors: Vec<f64>,
    /// Estimated squared correlation of the values with the true ones, from 0 to 1. Of estimates that are all the same it is 0,
    /// because then there is nothing to be right about; of exact values it is 1.
    pub reliability: f64,
    /// Evaluations that the log cost.
    pub evaluations: u64,
    /// Samples that were fitted.
    pub samples: u64,
}

impl Estimate {
    /// Unbiased values: their variance over the players is that of the truth plus that of the errors.
    ///
    /// `spread` are the standard errors without what all players share, which no comparison of players sees.
    pub(crate) fn unbiased(log: &SampleLog, values: Vec<f64>, standard_errors: Vec<f64>, spread: &[f64]) -> Self {
        let error = mean_square(spread);
        let reliability = 1.0 - error / variance(&values);
        Self::new(log, values, standard_errors, reliability)
    }

    /// Values without any error.
    pub(crate) fn exact(log: &SampleLog, values: Vec<f64>) -> Self {
        let standard_errors = vec![0.0; values.len()];
        Self::new(log, values, standard_errors, 1.0)
    }

    pub(crate) fn new(log: &SampleLog, values: Vec<f64>, standard_errors: Vec<f64>, reliability: f64) -> Self {
        // 0/0: no errors, and no differences between the players either.
        let reliability = if reliability.is_nan() { 0.0 } else { reliability.clamp(0.0, 1.0) };
        Self { values, standard_errors, reliability, evaluations: log.evaluations(), samples: log.len() as u64 }
    }
}

/// Posterior means vary over the players as the truth does, less the posterior's own variance.
pub(crate) fn posterior_reliability(means: &[f64], standard_errors: &[f64]) -> f64 {
    let error = mean_square(standard_errors);
    1.0 - error / (variance(means) + error)
}

fn mean_square(values: &[f64]) -> f64 {
    mean(&values.iter().map(|value| value * value).collect::<Vec<_>>())
}

/// Why a log could not be fitted.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum FitError {
    /// The design evaluates other coalitions than the estimator needs.
    #[error("`{estimator}` cannot use samples of the design `{design}`; it needs {needed}")]
    Design {
        /// Name of the estimator.
        estimator: &'static str,
        /// Name of the log's design.
        design: &'static str,
        /// Designs that would do.
        needed: &'static str,
    },
    /// Not enough samples yet.
    #[error("`{estimator}` needs at least {needed} samples here; the log has {found}")]
    TooFewSamples {
        /// Name of the estimator.
        estimator: &'static str,
        /// Samples of the log.
        found: usize,
        /// Samples needed.
        needed: usize,
    },
    /// Values of another game are expected, which has other players.
    #[error("values of {expected} players are expected in a game of {players}")]
    OtherPlayers {
        /// Values that are expected.
        expected: usize,
        /// Players of the game.
        players: usize,
    },
    /// U(nobody) and U(everybody) have not been evaluated.
    #[error("the log lacks U(nobody) and U(everybody), which `{0}` needs")]
    NoEnds(&'static str),
}

/// A pure function of the log.
///
/// ```
/// use cokv_shapley::{Design, Ends, Estimate, Estimator, FitError, LogHeader, Sample, SampleLog, SamplingPlan};
///
/// /// What is lost where a player alone is missing.
/// #[derive(Debug)]
/// struct Lost;
///
/// impl Estimator for Lost {
///     fn name(&self) -> &'static str {
///         "lost"
///     }
///
///     fn design(&self, _players: usize) -> Design {
///         Design::LeaveOneOut
///     }
///
///     fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
///         let all = log.ends().ok_or(FitError::NoEnds("lost"))?;
///         let mean = |utilities: &[f64]| utilities.iter().sum::<f64>() / utilities.len() as f64;
///         let mut values = vec![0.0; log.plan().players];
///         for sample in log.samples() {
///             values[sample.k as usize] = mean(&all.full) - mean(&sample.utilities);
///         }
///         let standard_errors = vec![f64::INFINITY; values.len()];
///         let (evaluations, samples) = (log.evaluations(), log.len() as u64);
///         Ok(Estimate { values, standard_errors, reliability: 0.0, evaluations, samples })
///     }
/// }
///
/// let design = Lost.design(2);
/// let plan = SamplingPlan { players: 2, instances: 1, instances_per_sample: 1, seed: 1, design };
/// let mut log = SampleLog::new(LogHeader::new("a game", plan)).unwrap();
/// log.set_ends(Ends { empty: vec![0.0], full: vec![1.0] }).unwrap();
/// log.insert(Sample { k: 0, utilities: vec![0.75] }).unwrap();
/// log.insert(Sample { k: 1, utilities: vec![0.5] }).unwrap();
/// assert_eq!(Lost.fit(&log).unwrap().values, [0.25, 0.5]);
/// ```
pub trait Estimator: Debug + Send + Sync {
    /// The name that configurations use.
    fn name(&self) -> &'static str;

    /// The design that it is made for.
    fn design(&self, players: usize) -> Design;

    /// Values of the mean game over all instances, from whatever the log holds.
    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError>;

    /// The same estimator, which expects values in proportion to those of another game, one for each player; none where it
    /// expects nothing.
    fn informed(&self, _expected: &[f64]) -> Option<Box<dyn Estimator>> {
        None
    }
}

impl<E: Estimator + ?Sized> Estimator for Box<E> {
    fn name(&self) -> &'static str {
        (**self).name()
    }

    fn design(&self, players: usize) -> Design {
        (**self).design(players)
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        (**self).fit(log)
    }

    fn informed(&self, expected: &[f64]) -> Option<Box<dyn Estimator>> {
        (**self).informed(expected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimators::Exact;
    use crate::{LogHeader, Sample, SamplingPlan};

    #[test]
    fn exact_values_are_reliable_whatever_they_are() {
        for (players, utilities) in [(1, vec![vec![0.25, 1.0]]), (2, vec![vec![0.0, 1.0], vec![0.5, 0.5]])] {
            let plan =
                SamplingPlan { players, instances: 1, instances_per_sample: 1, seed: 0, design: Design::Exhaustive };
            let mut log = SampleLog::new(LogHeader::new("game", plan)).unwrap();
            for (k, utilities) in (0..).zip(utilities) {
                log.insert(Sample { k, utilities }).unwrap();
            }
            let estimate = Exact {}.fit(&log).unwrap();
            assert_eq!((estimate.reliability, estimate.standard_errors), (1.0, vec![0.0; players]), "{players}");
        }
    }
}
