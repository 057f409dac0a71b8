//! KernelSHAP with paired samples.

use serde::{Deserialize, Serialize};

use crate::linear_algebra::{Cholesky, Matrix};
use crate::pairs::{Pair, pairs};
use crate::regression::Data;
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// The Shapley value as weighted least squares under efficiency (Lundberg, Lee 2017), from pairs (Covert, Lee 2021).
///
/// Of a pair, only the complementary contribution v enters: with s = 1 for members and -1 for others, the objective is
/// the weighted sum of (v - Σ β_i s_i)² under Σ β_i = U(N) - U(∅). The weights make up for the design: 1 for
/// `kernel-sizes`, 1/(|S| (n - |S|)) for `all-sizes` (Leverage SHAP, Musco, Witter 2025), and the Shapley kernel for
/// `exhaustive`, which makes it exact. A utility that is curved in the size of the coalition is noise to it.
/// Standard errors are heteroscedasticity-consistent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelShap {}

impl Estimator for KernelShap {
    fn name(&self) -> &'static str {
        "kernel-shap"
    }

    fn design(&self, _players: usize) -> Design {
        Design::KernelSizes
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let players = log.plan().players;
        let weight: fn(&Pair) -> f64 = match log.plan().design {
            Design::KernelSizes => |_| 1.0,
            Design::AllSizes => size_weight,
            Design::Exhaustive => |pair| size_weight(pair) / binomial(pair.coalition.players(), pair.size),
            _ => {
                let needed = "pairs of all sizes: `kernel-sizes`, `all-sizes` or `exhaustive`";
                return Err(FitError::Design { estimator: self.name(), design: log.plan().design.name(), needed });
            }
        };
        // The pair of nobody and everybody is the constraint, not a sample.
        let proper = |pair: &Pair| pair.size > 0 && pair.size < players;
        let pairs: Vec<Pair> = pairs(log, self.name(), players)?.into_iter().filter(proper).collect();
        let ends = log.ends().ok_or(FitError::NoEnds(self.name()))?;
        let response = pairs
            .iter()
            .map(|pair| pair.contribution - pair.centred_size() * ends.difference(pair.instances.iter().copied()));
        // Rows carry the root of their weight.
        let roots: Vec<f64> = pairs.iter().map(|pair| weight(pair).sqrt()).collect();
        let data = Data {
            response: response.zip(&roots).map(|(value, root)| value * root).collect(),
            features: pairs.iter().zip(&roots).flat_map(|(p, root)| p.centred_signs().map(move |x| x * root)).collect(),
            width: players,
        };
        // The features sum to 0: a constant matrix fills the one direction that they leave empty, where nothing is.
        let gram = Matrix::gram(players, &data.features, |_| 1.0);
        let filling = gram.trace() / (players * players) as f64;
        let too_few = FitError::TooFewSamples { estimator: self.name(), found: log.len(), needed: log.len() + players };
        let cholesky = Cholesky::new(gram.plus_everywhere(filling)).ok_or(too_few)?;
        let effects = cholesky.solve(&data.moment());
        let share = ends.mean_difference() / players as f64;
        let values = effects.iter().map(|effect| share + effect).collect();
        if log.plan().design == Design::Exhaustive && log.plan().samples() == Some(log.len() as u64) {
            return Ok(Estimate::exact(log, values));
        }
        let mut squares = vec![0.0; players];
        let residuals = data.residuals(&effects);
        for (row, residual) in data.features.chunks_exact(players).zip(residuals) {
            for (square, influence) in squares.iter_mut().zip(cholesky.solve(row)) {
                *square += (influence * residual).powi(2);
            }
        }
        let spare = pairs.len().saturating_sub(players - 1);
        let correction = if spare == 0 { f64::INFINITY } else { pairs.len() as f64 / spare as f64 };
        // Infinity times an error of zero is not known either.
        let root = |square: f64| if spare == 0 { f64::INFINITY } else { (square * correction).sqrt() };
        let errors: Vec<f64> = squares.into_iter().map(root).collect();
        let spread = errors.clone();
        Ok(Estimate::unbiased(log, values, errors, &spread))
    }
}

fn size_weight(pair: &Pair) -> f64 {
    1.0 / (pair.size * (pair.coalition.players() - pair.size)) as f64
}

fn binomial(players: usize, size: usize) -> f64 {
    (0..size).map(|place| (players - place) as f64 / (place + 1) as f64).product()
}
