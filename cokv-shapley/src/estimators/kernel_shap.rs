//! KernelSHAP with paired samples.

use serde::{Deserialize, Serialize};

use crate::linear_algebra::{Cholesky, Matrix};
use crate::pairs::{Pair, pairs};
use crate::regression::Data;
use crate::without_replacement::size_classes;
use crate::{Design, Estimate, Estimator, FitError, SampleLog, SamplingPlan};

const NAME: &str = "kernel-shap";

/// The Shapley value as weighted least squares under efficiency (Lundberg, Lee 2017), from pairs (Covert, Lee 2021).
///
/// Of a pair, only the complementary contribution v enters: with s = 1 for members and -1 for others, the objective is
/// the weighted sum of (v - Σ β_i s_i)² under Σ β_i = U(N) - U(∅). The weights make up for the design: 1 for
/// `kernel-sizes`, 1/(|S| (n - |S|)) for `all-sizes` (Leverage SHAP, Musco, Witter 2025), for `kernel-without-replacement` a size's
/// weight shared out among its pairs once all of them are there, as in shapiq's sampler (Muschalik et al. 2024), and the Shapley
/// kernel for `exhaustive`, which makes it exact. A utility that is curved in the size of the coalition is noise to it.
/// Standard errors are heteroscedasticity-consistent, and of sizes that are enumerated only what is left to be seen counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KernelShap {}

impl Estimator for KernelShap {
    fn name(&self) -> &'static str {
        NAME
    }

    fn design(&self, _players: usize) -> Design {
        Design::KernelWithoutReplacement
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let players = log.plan().players;
        // The pair of nobody and everybody is the constraint, not a sample.
        let proper = |pair: &Pair| pair.size > 0 && pair.size < players;
        // A design that cannot be weighed is worse than one of which nothing is there yet.
        weights(log, &[])?;
        let pairs: Vec<Pair> = pairs(log, self.name(), players)?.into_iter().filter(proper).collect();
        let ends = log.ends().ok_or(FitError::NoEnds(self.name()))?;
        let response = pairs.iter().map(|pair| {
            let whole = pair.weight * ends.difference(pair.instances.iter().copied());
            pair.contribution - pair.centred_size() * whole
        });
        // Rows carry the root of their weight.
        let weights = weights(log, &pairs)?;
        let roots: Vec<f64> = weights.iter().map(|weighed| weighed.weight.sqrt()).collect();
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
        for ((row, residual), Weighed { unseen, .. }) in
            data.features.chunks_exact(players).zip(residuals).zip(&weights)
        {
            for (square, influence) in squares.iter_mut().zip(cholesky.solve(row)) {
                *square += unseen * (influence * residual).powi(2);
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

/// What a pair counts.
#[derive(Clone, Copy)]
struct Weighed {
    weight: f64,
    /// Share of the pairs of its size, on all instances, that are not there: what can still surprise (the correction for
    /// finite populations, Cochran 1977).
    unseen: f64,
}

/// What each pair counts; an error where the design's pairs cannot be weighed.
fn weights(log: &SampleLog, pairs: &[Pair]) -> Result<Vec<Weighed>, FitError> {
    let each =
        |weight: fn(&Pair) -> f64| Ok(pairs.iter().map(|pair| Weighed { weight: weight(pair), unseen: 1.0 }).collect());
    match &log.plan().design {
        Design::KernelSizes => each(|_| 1.0),
        Design::AllSizes => each(size_weight),
        Design::Exhaustive => each(|pair| size_weight(pair) / binomial(pair.coalition.players(), pair.size)),
        Design::KernelWithoutReplacement => Ok(weights_without_replacement(log.plan(), pairs)),
        other => {
            let needed =
                "pairs of all sizes: `kernel-without-replacement`, `kernel-sizes`, `all-sizes` or `exhaustive`";
            Err(FitError::Design { estimator: NAME, design: other.name(), needed })
        }
    }
}

/// A size whose pairs are all there shares its weight out among them, and all other sizes share out theirs together.
fn weights_without_replacement(plan: &SamplingPlan, pairs: &[Pair]) -> Vec<Weighed> {
    let (players, classes) = (plan.players, size_classes(plan.players));
    let rounds = (plan.instances / plan.instances_per_sample) as f64;
    let class = |pair: &Pair| pair.size.min(players - pair.size) - 1;
    let mut counts = vec![0u64; classes.len()];
    pairs.iter().for_each(|pair| counts[class(pair)] += 1);
    let open = || classes.iter().zip(&counts).filter(|(class, count)| **count < class.pairs);
    let left: f64 = open().map(|(class, _)| class.weight).sum();
    let left_pairs: u64 = open().map(|(_, count)| count).sum();
    let weigh = |pair: &Pair| {
        let (class, count) = (&classes[class(pair)], counts[class(pair)]);
        let weight = if count >= class.pairs { class.weight / count as f64 } else { left / left_pairs as f64 };
        Weighed { weight, unseen: (1.0 - count as f64 / (class.pairs as f64 * rounds)).max(0.0) }
    };
    pairs.iter().map(weigh).collect()
}

fn size_weight(pair: &Pair) -> f64 {
    1.0 / (pair.size * (pair.coalition.players() - pair.size)) as f64
}

fn binomial(players: usize, size: usize) -> f64 {
    (0..size).map(|place| (players - place) as f64 / (place + 1) as f64).product()
}
