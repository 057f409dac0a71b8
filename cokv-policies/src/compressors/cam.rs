//! CaM (Zhang et al., openreview LCTmppB165): values of evicted tokens are added to those of kept ones behind them, by chance.

use cokv_core::random::{fraction, mix};
use cokv_core::{CacheCompressor, Frame, HeadSelection, LayerView, ObservationRequest, Pairs, PolicyError};
use serde::{Deserialize, Serialize};

use super::base::OnBase;
use super::group::group_mean;
use super::rewriting::pairs_of;

/// Keeps what another compressor keeps. An evicted token's value is shared out evenly among the next kept tokens, with a probability: what
/// it got of all attention over what those got on average, at most 1. Keys stay.
///
/// Made for answers: `while_decoding = { every = 128, compressor = "cam" }`. The draws depend on the seed, the head and the token's place
/// alone. Published code merges no more tokens at a look than were generated since the last one; here all that are evicted are
/// candidates, which is the same once the cache is full.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cam {
    /// Kept tokens that an evicted one is shared out among.
    pub among: usize,
    /// Which draw.
    pub seed: u64,
}

impl Default for Cam {
    fn default() -> Self {
        Self { among: 32, seed: 0 }
    }
}

impl Cam {
    /// The probability that an evicted token is shared out among kept ones, from what they got of all attention.
    fn probability(evicted: f32, among: &[f32]) -> f32 {
        let mean = among.iter().sum::<f32>() / among.len() as f32;
        let probability = evicted / mean;
        if probability.is_nan() { 0.0 } else { probability.clamp(0.0, 1.0) }
    }

    /// Adds the values of evicted tokens, `[tokens, dim]`, to those of the kept ones, `[kept, dim]`. `sums` is the attention that each
    /// token got, and `draw` a number from 0 to 1 for each.
    fn merge(
        &self,
        kept_values: &mut [f32],
        (values, dim): (&[f32], usize),
        kept: &[usize],
        sums: &[f32],
        draw: impl Fn(usize) -> f32,
    ) {
        let evicted = (0..sums.len()).filter(|token| kept.binary_search(token).is_err());
        for token in evicted {
            let first = kept.partition_point(|&other| other < token);
            let among = first..kept.len().min(first + self.among);
            let of_kept: Vec<f32> = kept[among.clone()].iter().map(|&other| sums[other]).collect();
            if of_kept.is_empty() || draw(token) >= Self::probability(sums[token], &of_kept) {
                continue;
            }
            let value = &values[token * dim..(token + 1) * dim];
            for into in kept_values[among.start * dim..among.end * dim].chunks_exact_mut(dim) {
                into.iter_mut().zip(value).for_each(|(sum, x)| *sum += x / of_kept.len() as f32);
            }
        }
    }
}

impl CacheCompressor for OnBase<Cam> {
    fn base(&self) -> Option<&dyn CacheCompressor> {
        Some(&*self.base)
    }

    fn observations(&self, frame: Frame) -> ObservationRequest {
        let own = ObservationRequest { column_sums: true, keys: true, values: true, ..Default::default() };
        self.base.observations(frame).union(own)
    }

    fn rewrites(&self) -> bool {
        true
    }

    fn rewrite(&self, layer: &LayerView<'_>, kept: &[HeadSelection]) -> Result<Vec<Pairs>, PolicyError> {
        let (tokens, dim) = (layer.prompt_len, layer.layout.head_dim);
        let sums = group_mean(layer.layout, layer.recorded("column sums", layer.column_sums)?, tokens);
        let values = layer.recorded("values", layer.values)?;
        let mut pairs = pairs_of(&*self.base, layer, kept)?;
        for (head, (kept, pairs)) in kept.iter().zip(&mut pairs).enumerate() {
            let place = (layer.layer as u64) << 32 | (layer.first_kv_head + head) as u64;
            let draw =
                |token: usize| fraction(mix(mix(mix(self.settings.seed) ^ place) ^ layer.position(token) as u64));
            let values = &values[head * tokens * dim..(head + 1) * tokens * dim];
            let sums = &sums[head * tokens..(head + 1) * tokens];
            self.settings.merge(&mut pairs.values, (values, dim), &kept.positions(tokens), sums, draw);
        }
        Ok(pairs)
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        self.base.score(layer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The case that is worked out by hand: of tokens 0 to 5, 0, 2, 4 and 5 are kept, and 1 is shared out among two.
    #[test]
    fn values_go_to_the_next_kept_tokens() {
        let cam = Cam { among: 2, seed: 0 };
        let sums = [0.9, 0.3, 0.5, 0.0, 0.1, 0.2];
        let values: Vec<f32> = (0..6).flat_map(|token| [token as f32, 1.0]).collect();
        let kept = [0usize, 2, 4, 5];
        let mut merged: Vec<f32> = kept.iter().flat_map(|&token| values[token * 2..token * 2 + 2].to_vec()).collect();
        assert_eq!(Cam::probability(0.3, &[0.5, 0.1]), 1.0);
        cam.merge(&mut merged, (&values, 2), &kept, &sums, |_| 0.5);
        // Token 3 got nothing and goes for good; no token stands behind the last kept one.
        assert_eq!(merged, [0.0, 1.0, 2.5, 1.5, 4.5, 1.5, 5.0, 1.0]);
        assert_eq!(Cam::probability(0.0, &[0.0]), 0.0);
        assert_eq!(Cam::probability(0.1, &[0.0]), 1.0);
    }
}
