//! The Sliced Shapley Value by regression.

use serde::{Deserialize, Serialize};

use super::scpr::{centred, standard_errors};
use super::ssv::slices;
use crate::estimate::posterior_reliability;
use crate::pairs::Pair;
use crate::regression::{Data, Ridge};
use crate::statistics::{mean, variance};
use crate::{Design, Estimate, Estimator, FitError, SampleLog};

/// What [`super::Ssv`] estimates, from the same samples, with less noise.
///
/// At a fixed size j the difference D_i = E[v | i in S] - E[v | i not in S] of the complementary contribution v is
/// n/(n - 1) times the slope of v on the indicator of player i, in a regression on all indicators at once; so a ridge
/// regression per slice estimates D without the other players' effects as noise. The published value is
/// mean(v) + (1 - j/n) D_i, averaged over the slices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SsvRidge {}

impl Estimator for SsvRidge {
    fn name(&self) -> &'static str {
        "ssv-ridge"
    }

    fn design(&self, players: usize) -> Design {
        Design::authors(players)
    }

    fn fit(&self, log: &SampleLog) -> Result<Estimate, FitError> {
        let slices = slices(log, self.name(), 4)?;
        let players = log.plan().players;
        let weight = 1.0 / slices.len() as f64;
        let mut values = vec![0.0; players];
        let (mut errors, mut shared) = (vec![0.0; players], 0.0);
        for slice in &slices {
            let contributions = slice.contributions();
            let count = contributions.len() as f64;
            let center = mean(&contributions);
            values.iter_mut().for_each(|value| *value += weight * center);
            shared += weight * weight * variance(&contributions) / (count - 1.0);
            let features = slice.pairs.iter().flat_map(Pair::centred_signs).collect();
            let mut data = Data { response: contributions, features, width: players };
            let projected = data.project_out([vec![1.0; slice.pairs.len()]]);
            let Some(fit) = Ridge::new(&data, projected).fit() else { continue };
            // A sign is twice an indicator; a player is outside of a share 1 - j/n of the coalitions.
            let outside = 1.0 - slice.size as f64 / players as f64;
            let scale = weight * outside * 2.0 * players as f64 / (players - 1) as f64;
            for (player, (effect, error)) in centred(&fit.mean).zip(standard_errors(&fit)).enumerate() {
                values[player] += scale * effect;
                errors[player] += (scale * error).powi(2);
            }
        }
        let spread: Vec<f64> = errors.iter().map(|square| square.sqrt()).collect();
        let reliability = posterior_reliability(&values, &spread);
        let errors = errors.into_iter().map(|square| (square + shared).sqrt()).collect();
        Ok(Estimate::new(log, values, errors, reliability))
    }
}
