//! Size-centred paired regression, the default.

mod informed;
mod third_order;

use serde::{Deserialize, Serialize};

use self::informed::Informed;
use self::third_order::ThirdOrder;
use crate::estimate::posterior_reliability;
use crate::pairs::{Pair, pairs, size_curves, subtract_instance_effects};
use crate::regression::{Data, Posterior, Relevance, Ridge};
use crate::statistics::mean;
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

const NAME: &str = "scpr";

/// How much more probable, as a logarithm, third-order terms must make the samples to be taken: strong evidence (Kass, Raftery 1995).
/// Which players' terms, and how variable they are, is chosen by the same samples: where there is no such structure, that gains up
/// to 3.8 on games of `examples/convergence.rs`.
const STRONG_EVIDENCE: f64 = 4.0;

/// Size-centred paired regression: all players' effects at once, from complementary pairs.
///
/// With s = 1 for members of S and -1 for others and c = mean(s), the complementary contribution of an additive game
/// is exactly Σ φ_i s_i. So U(S) - U(N∖S) is regressed on x_i = s_i - c, next to a curve in the size (c, c³, …, c⁹),
/// which takes up how steep the utility is in the number of heads, and next to a shrunken slope in c for every instance
/// where samples see few of them. The coefficients have a normal prior whose width makes the samples most probable
/// (empirical Bayes), so that fewer samples than players are enough to begin with. Then
/// φ_i = (U(N) - U(∅))/n + a_i - mean(a): the values sum to U(N) - U(∅).
///
/// Reliability is that of the plain ridge posterior, whatever the prior. It is calibrated; where relevance determination is
/// chosen on nothing but noise, the few effects that it keeps would look reliable. Standard errors are the plain ridge's too,
/// or the third-order posterior's where these are larger, and beside them, under [`Prior::Auto`], half of what the values differ
/// by from those of [`Prior::SizeModulated`]: coalitions of middling size say less about all sizes than their number has it.
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
    /// The most probable of the next three, by the evidence that each is fitted with; the third where it is far more probable than the
    /// others. Generalised cross-validation chooses no better.
    #[default]
    Auto,
    /// All effects come from one normal distribution.
    Ridge,
    /// Few effects are large: automatic relevance determination.
    Ard,
    /// As `Ard`, and what the few strong ones do together depends on the size of the coalition: terms of third order
    /// of them are features too.
    ThirdOrder,
    /// Effects change with the size of the coalition: x_i (c² - 1/3) are features too. The effect is read off as the
    /// mean over all sizes. Never chosen by `Auto`: it is more probable than `Ard` where samples are many, and budgets in
    /// proportion to its values are worse.
    SizeModulated,
}

/// A reading of the samples.
struct Fitted {
    effects: Vec<f64>,
    log_evidence: f64,
    /// Its own standard deviations, where these mean something.
    errors: Option<Vec<f64>>,
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
        let Some(reading) = self.read(&pairs, log, &vec![0.0; players]) else {
            return Ok(Estimate::new(log, vec![share; players], vec![0.0; players], 0.0));
        };
        Ok(reading.estimate(log, share))
    }

    fn informed(&self, expected: &[f64]) -> Option<Box<dyn Estimator>> {
        Some(Box::new(Informed::new(*self, expected)))
    }
}

/// Effects with how sure they are.
struct Reading {
    effects: Vec<f64>,
    errors: Vec<f64>,
    reliability: f64,
    log_evidence: f64,
}

impl Reading {
    /// As values, of which each has its share of the whole.
    fn estimate(self, log: &SampleLog, share: f64) -> Estimate {
        let values = centred(&self.effects).map(|effect| share + effect).collect();
        Estimate::new(log, values, self.errors, self.reliability)
    }
}

impl Scpr {
    /// What the pairs say of the effects beyond those that were `expected` and taken out of the pairs; none where nothing varies.
    fn read(&self, pairs: &[Pair], log: &SampleLog, expected: &[f64]) -> Option<Reading> {
        let ridge = regression(pairs, log, &|_| Vec::new());
        let plain = ridge.fit()?;
        let chosen = self.choose(pairs, log, expected, &ridge, &plain);
        let mut errors = standard_errors(&plain);
        let reliability = posterior_reliability(&plain.mean, &errors);
        for (error, own) in errors.iter_mut().zip(chosen.errors.iter().flatten()) {
            *error = error.max(*own);
        }
        if self.prior == Prior::Auto
            && let Some(other) = fit_modulated(pairs, log)
        {
            let both = centred(&chosen.effects).zip(centred(&other.effects));
            for (error, (here, there)) in errors.iter_mut().zip(both) {
                *error = error.hypot(0.5 * (here - there));
            }
        }
        Some(Reading { effects: chosen.effects, errors, reliability, log_evidence: chosen.log_evidence })
    }

    /// What the prior makes of the samples.
    fn choose(&self, pairs: &[Pair], log: &SampleLog, expected: &[f64], ridge: &Ridge, plain: &Posterior) -> Fitted {
        let simple = || Fitted { effects: plain.mean.clone(), log_evidence: plain.log_evidence, errors: None };
        let relevance = || ridge.fit_relevance(plain);
        let third = |relevance: &Relevance| {
            third_order::fit(relevance, expected, |features| regression(pairs, log, features)).map(Fitted::from)
        };
        match self.prior {
            Prior::Ridge => None,
            Prior::SizeModulated => fit_modulated(pairs, log),
            Prior::Ard => relevance().map(|found| Fitted::from(found.posterior)),
            Prior::ThirdOrder => relevance().and_then(|found| third(&found)),
            Prior::Auto => relevance().map(|found| {
                let third = third(&found);
                let (simple, relevant) = (simple(), Fitted::from(found.posterior));
                let first = if relevant.log_evidence > simple.log_evidence { relevant } else { simple };
                let least = first.log_evidence + STRONG_EVIDENCE;
                third.filter(|third| third.log_evidence > least).unwrap_or(first)
            }),
        }
        .unwrap_or_else(simple)
    }
}

impl From<Posterior> for Fitted {
    fn from(Posterior { mean, log_evidence, .. }: Posterior) -> Self {
        Self { effects: mean, log_evidence, errors: None }
    }
}

impl From<ThirdOrder> for Fitted {
    fn from(ThirdOrder { effects, errors, log_evidence }: ThirdOrder) -> Self {
        Self { effects, log_evidence, errors: Some(errors) }
    }
}

/// The regression on x_i, and on what else is told about each pair, with the size curve taken out.
fn regression(pairs: &[Pair], log: &SampleLog, more: &dyn Fn(&Pair) -> Vec<f64>) -> Ridge {
    let response = pairs.iter().map(|pair| pair.contribution).collect();
    let features: Vec<f64> = pairs.iter().flat_map(|pair| pair.centred_signs().chain(more(pair))).collect();
    let (data, projected) = without_size(Data { response, width: features.len() / pairs.len(), features }, pairs, log);
    Ridge::new(&data, projected)
}

/// What neither the size of the coalition nor the instance explains, and how many dimensions that took.
fn without_size(mut data: Data, pairs: &[Pair], log: &SampleLog) -> (Data, usize) {
    subtract_instance_effects(&mut data, pairs, log, Pair::centred_size);
    let projected = data.project_out(size_curves(pairs, 1));
    (data, projected)
}

fn fit_modulated(pairs: &[Pair], log: &SampleLog) -> Option<Fitted> {
    let players = log.plan().players;
    let modulation = |size: f64| size * size - 1.0 / 3.0;
    let modulated = |pair: &Pair| {
        let factor = modulation(pair.centred_size());
        pair.centred_signs().map(|sign| factor * sign).collect()
    };
    let fit = regression(pairs, log, &modulated).fit()?;
    let sizes = (1..players).map(|size| modulation(2.0 * size as f64 / players as f64 - 1.0));
    let mean_modulation = sizes.sum::<f64>() / (players - 1) as f64;
    let (constant, modulated) = fit.mean.split_at(players);
    let effects = constant.iter().zip(modulated).map(|(constant, slope)| constant + slope * mean_modulation).collect();
    Some(Fitted { effects, log_evidence: fit.log_evidence, errors: None })
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
