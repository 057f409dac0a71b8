//! Values of another game as the mean of the prior.

use super::{NAME, Reading, Scpr, centred, regression, without_size};
use crate::diagnostics::of_both_halves;
use crate::linear_algebra::dot;
use crate::pairs::{Pair, pairs};
use crate::regression::Data;
use crate::statistics::pearson;
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// Shares of the best fitting factor that values of another game are tried with, beside none at all.
const SHARES: [f64; 3] = [0.5, 0.75, 1.0];

/// How much more probable, as a logarithm, others' values must make the samples to be looked at: the factor is chosen by them.
const POSITIVE_EVIDENCE: f64 = 2.0;

/// [`Scpr`] around values that are γ times those of another game, such as of another task: only what differs has to be found.
///
/// γ, which makes units of no account, is chosen by evidence, and is 0 for values of no relation. Where it is not, reliability is
/// that of the deviation from them: the correlation of two halves' plain ridges, for as many samples as there are (Spearman 1910,
/// Brown 1910). That of the whole would count as known what was only expected.
#[derive(Clone, Debug)]
pub(super) struct Informed {
    scpr: Scpr,
    /// Less their mean.
    expected: Vec<f64>,
}

impl Informed {
    pub fn new(scpr: Scpr, expected: &[f64]) -> Self {
        Self { scpr, expected: centred(expected).collect() }
    }

    /// What is expected of a pair.
    fn contribution(&self, pair: &Pair) -> f64 {
        pair.weight * dot(&pair.centred_signs().collect::<Vec<_>>(), &self.expected)
    }

    /// The pairs without `factor` times what is expected of them.
    fn beyond(&self, pairs: &[Pair], factor: f64) -> Vec<Pair> {
        let beyond = |pair: &Pair| {
            let contribution = pair.contribution - factor * self.contribution(pair);
            Pair { contribution, ..pair.clone() }
        };
        pairs.iter().map(beyond).collect()
    }

    /// The factor of least squares, next to a curve in the size.
    fn factor(&self, pairs: &[Pair], log: &SampleLog) -> f64 {
        let features = pairs.iter().map(|pair| self.contribution(pair)).collect();
        let response = pairs.iter().map(|pair| pair.contribution).collect();
        let data = without_size(Data { response, features, width: 1 }, pairs, log).0;
        let square = dot(&data.features, &data.features);
        if square > 0.0 { data.moment()[0] / square } else { 0.0 }
    }

    fn scaled(&self, factor: f64) -> Vec<f64> {
        self.expected.iter().map(|value| factor * value).collect()
    }

    /// Squared correlation of what was found beyond the expected values with what is true of it.
    fn reliability(&self, log: &SampleLog, factor: f64) -> Result<f64, FitError> {
        let (first, second) = log.halves();
        let half = |log: &SampleLog| -> Result<Vec<f64>, FitError> {
            let pairs = self.beyond(&pairs(log, NAME, 6)?, factor);
            let fit = regression(&pairs, log, &|_| Vec::new()).fit();
            Ok(fit.map_or_else(|| vec![0.0; self.expected.len()], |fit| fit.mean))
        };
        Ok(of_both_halves(pearson(&half(&first)?, &half(&second)?)))
    }
}

impl Estimator for Informed {
    fn name(&self) -> &'static str {
        NAME
    }

    fn design(&self, players: usize) -> Design {
        self.scpr.design(players)
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let (pairs, players) = (pairs(log, NAME, 12)?, log.plan().players);
        if self.expected.len() != players {
            return Err(FitError::OtherPlayers { expected: self.expected.len(), players });
        }
        let share = log.ends().ok_or(FitError::NoEnds(NAME))?.mean_difference() / players as f64;
        let Some(alone) = self.scpr.read(&pairs, log, &vec![0.0; players]) else { return self.scpr.fit(log) };
        let factor = self.factor(&pairs, log);
        let mut best: Option<(f64, Reading)> = None;
        for factor in SHARES.map(|share| share * factor).into_iter().filter(|&factor| factor > 0.0) {
            let Some(reading) = self.scpr.read(&self.beyond(&pairs, factor), log, &self.scaled(factor)) else {
                continue;
            };
            let least = best.as_ref().map_or(alone.log_evidence + POSITIVE_EVIDENCE, |(_, best)| best.log_evidence);
            if reading.log_evidence > least {
                best = Some((factor, reading));
            }
        }
        let Some((factor, reading)) = best else { return Ok(alone.estimate(log, share)) };
        let expected = self.scaled(factor);
        let values = centred(&reading.effects).zip(expected).map(|(beyond, expected)| share + beyond + expected);
        Ok(Estimate::new(log, values.collect(), reading.errors, self.reliability(log, factor)?))
    }
}
