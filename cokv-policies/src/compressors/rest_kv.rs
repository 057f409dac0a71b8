//! ReST-KV (arXiv 2605.08840): what a token's absence does to the layer's output, by attention that is smoothed over
//! time.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, ObservationRequest, PolicyError, Protected,
};
use serde::{Deserialize, Serialize};

use super::dropkv::odds;
use super::group::group_mean;
use super::linear_algebra::{lengths_behind, weighted_sum};
use super::pooling::{Pooling, check_kernel};
use super::ranking::best_first;
use super::window::{WindowFrom, check_window};
use crate::settings::{AtLeastZero, Share};

const SMOOTHING: Share = Share::new(0.3).unwrap();
const POWER: AtLeastZero = AtLeastZero::new(1.0).unwrap();

/// Tokens that say where half of a window looks: ours, since the paper says no more than that the best ones do.
const BEST: usize = 64;

/// How far these must move to make the kernel wider by two.
const STEP: usize = 2000;

/// Smooths the window's attention over time, `m ← smoothing · row + (1 − smoothing) · m`, and scores a token by how far
/// the layer's output moves without it: `m / (1 − m) · ‖W_o (o − v)‖₂ ^ power`. Pooled the more widely, the further the
/// best tokens moved between the window's halves; mean over the group.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RestKv {
    /// Queries at the end of the prompt that vote; their own tokens are always kept.
    pub window: usize,
    /// Where the window ends.
    pub window_from: WindowFrom,
    /// What the youngest row counts; the paper's α.
    pub smoothing: Share,
    /// Of the distance; the paper's τ.
    pub power: AtLeastZero,
    /// Least width of the average pooling, odd; 1 is none in prompts whose best tokens stay where they are.
    pub kernel: usize,
}

impl Default for RestKv {
    fn default() -> Self {
        Self { window: 32, window_from: WindowFrom::default(), smoothing: SMOOTHING, power: POWER, kernel: 5 }
    }
}

impl RestKv {
    /// Refuses settings that contradict themselves.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        check_window(settings, "rest-kv", self.window)?;
        check_kernel(settings, "rest-kv", self.kernel)?;
        Ok(self)
    }

    /// Attention to each token of the prefix, the youngest rows counting most.
    fn smoothed(&self, rows: &[&[f32]]) -> Vec<f32> {
        let share = self.smoothing.get() as f32;
        let mut smoothed = rows.first().map_or(Vec::new(), |row| row.to_vec());
        for row in rows.iter().skip(1) {
            smoothed.iter_mut().zip(*row).for_each(|(m, weight)| *m = share * weight + (1.0 - share) * *m);
        }
        smoothed
    }
}

impl CacheCompressor for RestKv {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        let window = self.window_from.reach(self.window, frame.tail);
        ObservationRequest { window, values: true, output_grams: true, ..Default::default() }
    }

    fn protected(&self, frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window_from.reach(self.window, frame.tail) }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens, dim) = (layer.layout, layer.prompt_len, layer.layout.head_dim);
        let prefix = self.protected(layer.frame).candidates(tokens).end;
        let values = layer.recorded("values", layer.values)?;
        let grams = layer.recorded("output grams", layer.output_grams)?;
        let mut scores = vec![0.0; layout.query_heads * tokens];
        for query_head in 0..layout.query_heads {
            let rows = self.window_from.rows(layer, query_head, self.window)?.chunks_exact(tokens.max(1));
            let rows: Vec<&[f32]> = rows.map(|row| &row[..prefix]).collect();
            let values = &values[query_head / layout.group() * tokens * dim..][..prefix * dim];
            let gram = &grams[query_head * dim * dim..][..dim * dim];
            let smoothed = self.smoothed(&rows);
            let output = weighted_sum(&smoothed, values, dim);
            let away: Vec<f32> = values.iter().zip(output.iter().cycle()).map(|(v, o)| o - v).collect();
            let moved = lengths_behind(gram, away.chunks_exact(dim), dim);
            let power = self.power.get() as f32;
            let of_head: Vec<f32> = smoothed.iter().zip(moved).map(|(&m, far)| odds(m) * far.powf(power)).collect();
            let kernel = self.kernel.max(2 * (shift(&rows) / STEP) + 1);
            scores[query_head * tokens..][..prefix].copy_from_slice(&Pooling::Avg.pool(&of_head, kernel));
        }
        Ok(group_mean(layout, &scores, tokens))
    }
}

/// How far apart the tokens lie that the older and the younger half of some rows look at most.
fn shift(rows: &[&[f32]]) -> usize {
    let (older, younger) = rows.split_at(rows.len() / 2);
    let place = |rows: &[&[f32]]| {
        let mut sum = vec![0.0; rows.first().map_or(0, |row| row.len())];
        rows.iter().for_each(|row| sum.iter_mut().zip(*row).for_each(|(sum, weight)| *sum += weight));
        let best = best_first(&sum);
        let best = &best[..best.len().min(BEST)];
        best.iter().sum::<usize>() / best.len().max(1)
    };
    if older.is_empty() { 0 } else { place(older).abs_diff(place(younger)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::Prompt;

    #[test]
    fn distances_of_the_closed_form() {
        let (prompt, rest_kv) = (Prompt::new(16), "{ name = 'rest-kv', window = 4, kernel = 1 }");
        prompt.assert_scores(
            rest_kv,
            0,
            [
                [
                    0.164061, 0.2768533, 0.3487046, 0.1125049, 0.1465662, 0.0783906, 0.1943231, 0.3740523, 0.4261775,
                    0.2439365, 0.0983908, 0.0924396,
                ],
                [
                    0.1758843, 0.0822477, 0.1336753, 0.1557992, 0.1207433, 0.6627063, 0.1062536, 0.2630047, 0.2500751,
                    0.1182634, 0.1750918, 0.1237635,
                ],
            ],
        );
        assert_eq!(prompt.kept(rest_kv, 8), [[1, 2, 7, 8, 12, 13, 14, 15], [0, 5, 7, 8, 12, 13, 14, 15]]);
    }

    #[test]
    fn shifts_are_of_the_best_tokens() {
        let looking_at = |first: usize| {
            let mut row = vec![0.0f32; 9000];
            row[first..first + BEST].fill(1.0);
            row
        };
        let (early, late) = (looking_at(100), looking_at(8100));
        assert_eq!(shift(&[&early, &early, &late, &late]), 8000);
        assert_eq!(shift(&[&early, &late, &early, &late]), 0);
        assert_eq!(shift(&[&early]), 0, "no half to compare with");
        assert_eq!(shift(&[]), 0);
    }
}
