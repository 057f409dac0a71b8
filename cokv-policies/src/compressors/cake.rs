//! CAKE (Qin et al., arXiv 2503.12491): tokens that attention keeps coming back to, and how much each layer needs.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, ObservationRequest, PolicyError, Protected,
};
use serde::{Deserialize, Serialize};

use super::group::group_mean;
use super::pooling::{Pooling, check_kernel};
use super::window::{WindowFrom, check_window};
use crate::settings::AtLeastZero;

const VARIANCE_WEIGHT: AtLeastZero = AtLeastZero::new(200.0).unwrap();

/// Scores a token by the mean of the attention that the observation window's queries pay it and, many times over, by
/// its variance; averaged over neighbours, mean over the group.
///
/// A layer needs the more, the wider its attention spreads over the prefix (the entropy of each row) and the more it
/// shifts between rows (the variance of each token): `spread ^ (1 / τ₁) · shift ^ (1 / τ₂)`. The allocator
/// `layer-preferences` shares budgets out by that; the preset `cake-paper` is the two together. The paper shrinks layers
/// as they are read, to the same end.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cake {
    /// Queries at the end of the prompt that vote; their own tokens are always kept.
    pub window: usize,
    /// Where the window ends.
    pub window_from: WindowFrom,
    /// Weight of the variance; the paper's γ.
    pub variance_weight: AtLeastZero,
    /// Width of the average pooling, odd.
    pub kernel: usize,
    /// The paper's τ₁, which it lists by model and budget.
    pub spread_temperature: f64,
    /// The paper's τ₂, which it lists by model and budget.
    pub shift_temperature: f64,
}

impl Default for Cake {
    fn default() -> Self {
        Self {
            window: 32,
            window_from: WindowFrom::default(),
            variance_weight: VARIANCE_WEIGHT,
            kernel: 5,
            spread_temperature: 1.0,
            shift_temperature: 1.0,
        }
    }
}

impl Cake {
    /// Refuses settings that contradict themselves.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        check_window(settings, "cake", self.window)?;
        check_kernel(settings, "cake", self.kernel)?;
        for (key, temperature) in
            [("spread_temperature", self.spread_temperature), ("shift_temperature", self.shift_temperature)]
        {
            if !(temperature > 0.0 && temperature.is_finite()) {
                return Err(settings.error_at(key, format!("{key} must be above 0 and finite; got {temperature}")));
            }
        }
        Ok(self)
    }

    /// Mean and variance (of a sample) of each prefix token's attention over the window's rows of a query head.
    fn moments(&self, layer: &LayerView<'_>, query_head: usize) -> Result<Vec<(f64, f64)>, PolicyError> {
        let prefix = self.protected(layer.frame).candidates(layer.prompt_len).end;
        let rows = self.window_from.rows(layer, query_head, self.window)?.chunks_exact(layer.prompt_len.max(1));
        let (count, mut sums) = (rows.len() as f64, vec![0.0; prefix]);
        for row in rows.clone() {
            sums.iter_mut().zip(row).for_each(|(sum, &weight)| *sum += f64::from(weight));
        }
        let mut moments: Vec<(f64, f64)> = sums.into_iter().map(|sum| (sum / count, 0.0)).collect();
        for row in rows {
            for ((mean, variance), &weight) in moments.iter_mut().zip(row) {
                *variance += (f64::from(weight) - *mean).powi(2) / (count - 1.0).max(1.0);
            }
        }
        Ok(moments)
    }
}

impl CacheCompressor for Cake {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        ObservationRequest { window: self.window_from.reach(self.window, frame.tail), ..Default::default() }
    }

    fn protected(&self, frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window_from.reach(self.window, frame.tail) }
    }

    fn prefers_layers(&self) -> bool {
        true
    }

    fn layer_preference(&self, layer: &LayerView<'_>) -> Result<f64, PolicyError> {
        let prefix = self.protected(layer.frame).candidates(layer.prompt_len).end;
        let (mut spread, mut shift) = (0.0, 0.0);
        for query_head in 0..layer.layout.query_heads {
            let rows = self.window_from.rows(layer, query_head, self.window)?;
            for row in rows.chunks_exact(layer.prompt_len.max(1)) {
                let weights = row[..prefix].iter().map(|&weight| f64::from(weight));
                spread -= weights.map(|weight| weight * (weight + 1e-10).ln()).sum::<f64>();
            }
            shift += self.moments(layer, query_head)?.iter().map(|(_, variance)| variance).sum::<f64>();
        }
        // A weight of 1 has an entropy that is below 0 by a rounding.
        Ok(spread.max(0.0).powf(1.0 / self.spread_temperature) * shift.powf(1.0 / self.shift_temperature))
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let tokens = layer.prompt_len;
        let mut scores = Vec::with_capacity(layer.layout.query_heads * tokens);
        for query_head in 0..layer.layout.query_heads {
            let moments = self.moments(layer, query_head)?;
            let weighted = moments.iter().map(|(mean, variance)| (mean + self.variance_weight.get() * variance) as f32);
            scores.extend(Pooling::Avg.pool(&weighted.collect::<Vec<_>>(), self.kernel));
            scores.resize((query_head + 1) * tokens, 0.0);
        }
        Ok(group_mean(layer.layout, &scores, tokens))
    }
}

#[cfg(test)]
mod tests {
    use crate::compressors::closed_form::{Prompt, method};

    const TOY: &str = "{ name = 'cake', window = 4, variance_weight = 1, kernel = 3 }";

    #[test]
    fn moments_of_the_closed_form() {
        let prompt = Prompt::new(16);
        prompt.assert_scores(
            TOY,
            0,
            [
                [
                    0.0666519, 0.086205, 0.0557362, 0.0406767, 0.0358215, 0.0556393, 0.1315332, 0.1707794, 0.1596625,
                    0.0874816, 0.0438049, 0.0244679,
                ],
                [
                    0.0186327, 0.0343941, 0.0437692, 0.0568838, 0.1203236, 0.1445232, 0.1644401, 0.1198146, 0.0906549,
                    0.0625259, 0.0392072, 0.0240827,
                ],
            ],
        );
        assert_eq!(prompt.kept(TOY, 8), [[6, 7, 8, 9, 12, 13, 14, 15], [4, 5, 6, 7, 12, 13, 14, 15]]);
    }

    #[test]
    fn layers_of_the_closed_form_need_as_much_as_they_spread_and_shift() {
        let (spread, shift) = ([28.9130126, 34.3194781], [0.31800033, 0.06665958]);
        for (settings, powers) in
            [("", [1.0, 1.0]), ("spread_temperature = 2", [0.5, 1.0]), ("shift_temperature = 0.5", [1.0, 2.0])]
        {
            let cake = method(&format!("{{ name = 'cake', window = 4, {settings} }}"));
            for (layer, prompt) in [Prompt::new(16), Prompt::second_layer(16)].iter().enumerate() {
                let ours = cake.layer_preference(&prompt.shown_to(&cake).view()).unwrap().unwrap();
                let expected: f64 = f64::powf(spread[layer], powers[0]) * f64::powf(shift[layer], powers[1]);
                assert!((ours - expected).abs() < 1e-6 * expected, "{settings}: {ours} and not {expected}");
            }
        }
    }
}
