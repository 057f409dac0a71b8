//! Size-centred paired regression, the default.

use serde::{Deserialize, Serialize};

use crate::estimate::posterior_reliability;
use crate::pairs::{Pair, pairs, size_curves, subtract_instance_effects};
use crate::regression::{Data, Posterior, Ridge};
use crate::statistics::mean;
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

const NAME: &str = "scpr";

/// Size-centred paired regression: all players' effects at once, from complementary pairs.
///
/// With s = 1 for members of S and -1 for others and c = mean(s), the complementary contribution of an additive game
/// is exactly Σ φ_i s_i. So U(S) - U(N∖S) is regressed on x_i = s_i - c, next to a curve in the size (c, c³, …, c⁹),
/// which takes up how steep the utility is in the number of heads, and next to a shrunken slope in c for every instance
/// where samples see few of them. The coefficients have a normal prior whose width makes the samples most probable
/// (empirical Bayes), so that fewer samples than players are enough to begin with. Then
/// φ_i = (U(N) - U(∅))/n + a_i - mean(a): the values sum to U(N) - U(∅).
///
/// Standard errors and reliability are those of the plain ridge posterior, whatever the prior. It is calibrated; where
/// relevance determination is chosen on nothing but noise, the few effects that it keeps would look reliable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scpr {
    /// What is assumed about the effects before any sample.
    pub prior: Prior,
}

/// What is assumed about the effects before any sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prior {
    /// The most probable of the others, by the evidence that each is fitted with. It is within 0.01 of the best of
    /// them in r² on the games of `examples/convergence.rs`, but for teams of equal strength and two evaluations per
    /// player (0.04 behind); generalised cross-validation chooses no better.
    #[default]
    Auto,
    /// All effects come from one normal distribution.
    Ridge,
    /// Few effects are large: automatic relevance determination.
    Ard,
    /// Effects change with the size of the coalition: x_i (c² - 1/3) are features too. The effect is read off as the
    /// mean over all sizes.
    SizeModulated,
}

impl Estimator for Scpr {
    fn name(&self) -> &'static str {
        NAME
    }

    fn design(&self, players: usize) -> Design {
        Design::middle(players)
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let pairs = pairs(log, NAME, 12)?;
        let ends = log.ends().ok_or(FitError::NoEnds(NAME))?;
        let players = log.plan().players;
        let share = ends.mean_difference() / players as f64;
        let (data, projected) = data(&pairs, log, |_| vec![1.0]);
        let ridge = Ridge::new(&data, projected);
        let Some(plain) = ridge.fit() else {
            return Ok(Estimate::new(log, vec![share; players], vec![0.0; players], 0.0));
        };
        let relevance = || ridge.fit_relevance(&plain).map(|fit| (fit.mean, fit.log_evidence));
        let candidates = match self.prior {
            Prior::Ridge => [None, None],
            Prior::Ard => [relevance(), None],
            Prior::SizeModulated => [None, fit_modulated(&pairs, log)],
            Prior::Auto => [relevance(), fit_modulated(&pairs, log)],
        };
        let most_probable = candidates.into_iter().flatten().max_by(|left, right| left.1.total_cmp(&right.1));
        let effects = match most_probable {
            Some((effects, evidence)) if self.prior != Prior::Auto || evidence > plain.log_evidence => effects,
            _ => plain.mean.clone(),
        };
        let values = centred(&effects).map(|effect| share + effect).collect();
        let errors = standard_errors(&plain);
        let reliability = posterior_reliability(&plain.mean, &errors);
        Ok(Estimate::new(log, values, errors, reliability))
    }
}

/// The features x_i times each of some functions of the pair, with the size curve taken out.
fn data(pairs: &[Pair], log: &SampleLog, modulation: impl Fn(f64) -> Vec<f64>) -> (Data, usize) {
    let response = pairs.iter().map(|pair| pair.contribution).collect();
    let features: Vec<f64> = pairs
        .iter()
        .flat_map(|pair| {
            let factors = modulation(pair.centred_size());
            factors.into_iter().flat_map(|factor| pair.centred_signs().map(move |sign| factor * sign))
        })
        .collect();
    let mut data = Data { response, width: features.len() / pairs.len(), features };
    subtract_instance_effects(&mut data, pairs, log, Pair::centred_size);
    let projected = data.project_out(size_curves(pairs, 1));
    (data, projected)
}

fn fit_modulated(pairs: &[Pair], log: &SampleLog) -> Option<(Vec<f64>, f64)> {
    let players = log.plan().players;
    let modulation = |size: f64| size * size - 1.0 / 3.0;
    let (data, projected) = data(pairs, log, |size| vec![1.0, modulation(size)]);
    let fit = Ridge::new(&data, projected).fit()?;
    let sizes = (1..players).map(|size| modulation(2.0 * size as f64 / players as f64 - 1.0));
    let mean_modulation = sizes.sum::<f64>() / (players - 1) as f64;
    let (constant, modulated) = fit.mean.split_at(players);
    let effects = constant.iter().zip(modulated).map(|(constant, slope)| constant + slope * mean_modulation);
    Some((effects.collect(), fit.log_evidence))
}

/// Coefficients less their mean, which the samples say nothing about.
pub(super) fn centred(effects: &[f64]) -> impl Iterator<Item = f64> + '_ {
    let center = mean(effects);
    effects.iter().map(move |effect| effect - center)
}

/// Standard errors of the centred coefficients. The features of a pair sum to 0, so that the mean coefficient keeps its
/// prior variance, which centring takes away.
pub(super) fn standard_errors(posterior: &Posterior) -> Vec<f64> {
    let shared = posterior.prior_variance / posterior.mean.len() as f64;
    posterior.variance.iter().map(|variance| (variance - shared).max(0.0).sqrt()).collect()
}
