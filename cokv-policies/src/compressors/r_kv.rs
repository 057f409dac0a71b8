//! R-KV (Cai et al., arXiv 2505.24133): what the last queries attend to, and not what others say already.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, ObservationRequest, PolicyError, Protected,
};
use ndarray::{Array2, ArrayView2, s};
use serde::{Deserialize, Serialize};

use super::group::norm;
use super::pooling::{Pooling, check_kernel};
use super::softmax::softmax;
use super::window::check_window;
use crate::settings::Share;

/// Scores a token by the attention of the last queries, and takes off how like the keys of others its key is. Of a family of like
/// keys the youngest is spared. Made for answers that go round in circles: `while_decoding = { every = 128, compressor = "r-kv" }`.
///
/// The defaults are the paper's; its code has 0.07 for `importance`, and LMCache's tuned values are
/// `window = 16, importance = 0.25`. The time of a look grows with the square of the tokens held.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RKv {
    /// Last queries that vote; their own tokens are always kept.
    pub window: usize,
    /// Width of the maximum over neighbours, odd.
    pub kernel: usize,
    /// The part of attention in the score (the paper's λ); the rest is that of likeness.
    pub importance: Share,
    /// Cosine from which on two keys say the same.
    pub similarity: f32,
}

impl Default for RKv {
    fn default() -> Self {
        const IMPORTANCE: Share = Share::new(0.1).unwrap();
        Self { window: 8, kernel: 7, importance: IMPORTANCE, similarity: 0.5 }
    }
}

impl RKv {
    /// Refuses settings that contradict themselves.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        check_window(settings, "r-kv", self.window)?;
        check_kernel(settings, "r-kv", self.kernel)?;
        Ok(self)
    }

    /// Of the tokens before the window, whose keys are `[tokens, dim]`, for queries `[queries, dim]` of each head of a group: softmax of
    /// the group's largest logit, mean over queries, largest of the neighbourhood.
    fn attention(&self, keys: ArrayView2<'_, f32>, heads: &[Array2<f32>]) -> Vec<f32> {
        let scale = (keys.ncols() as f32).sqrt().recip();
        let logits: Vec<Array2<f32>> = heads.iter().map(|queries| queries.dot(&keys.t()) * scale).collect();
        let Some(first) = logits.first() else { return vec![0.0; keys.nrows()] };
        let mut sum = vec![0.0f32; keys.nrows()];
        for query in 0..first.nrows() {
            let largest =
                |token: usize| logits.iter().map(|head| head[[query, token]]).fold(f32::NEG_INFINITY, f32::max);
            let row: Vec<f32> = (0..keys.nrows()).map(largest).collect();
            sum.iter_mut().zip(softmax(&row)).for_each(|(sum, weight)| *sum += weight);
        }
        let mean: Vec<f32> = sum.iter().map(|sum| sum / first.nrows().max(1) as f32).collect();
        Pooling::Max.pool(&mean, self.kernel)
    }

    /// How like a token's key those of the others are, of keys `[tokens, dim]`: softmax over the tokens of the mean cosine, where
    /// each key forgets the youngest that is like it.
    fn likeness(&self, keys: ArrayView2<'_, f32>) -> Vec<f32> {
        let tokens = keys.nrows();
        let mut units = keys.to_owned();
        for mut key in units.rows_mut() {
            let length = norm(key.as_slice().unwrap_or_default()).max(f32::MIN_POSITIVE);
            key /= length;
        }
        let mut sums = vec![0.0f32; tokens];
        for start in (0..tokens).step_by(BLOCK) {
            let block = start..tokens.min(start + BLOCK);
            let mut cosines = units.slice(s![block.clone(), ..]).dot(&units.t());
            for (row, token) in cosines.rows_mut().into_iter().zip(block) {
                let Ok(row) = row.into_slice().ok_or(()) else { continue };
                row[token] = 0.0;
                // Where none is like it, published code forgets the first token.
                row[row.iter().rposition(|&cosine| cosine > self.similarity).unwrap_or(0)] = 0.0;
                sums.iter_mut().zip(&*row).for_each(|(sum, cosine)| *sum += cosine);
            }
        }
        softmax(&sums.iter().map(|sum| sum / tokens as f32).collect::<Vec<_>>())
    }
}

/// Rows of cosines that exist at once.
const BLOCK: usize = 256;

impl CacheCompressor for RKv {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { keys: true, queries: self.window, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let (layout, tokens, dim) = (layer.layout, layer.prompt_len, layer.layout.head_dim);
        let keys = layer.recorded("keys", layer.keys)?;
        let queries = layer.last_queries(self.window)?;
        let prefix = self.protected(layer.frame).candidates(tokens).end;
        let importance = self.importance.get() as f32;
        let mut scores = vec![0.0; layout.kv_heads * tokens];
        for (kv_head, scores) in scores.chunks_exact_mut(tokens.max(1)).enumerate() {
            let keys = &keys[kv_head * tokens * dim..][..tokens * dim];
            let Ok(keys) = ArrayView2::from_shape((tokens, dim), keys) else { continue };
            let of_group = kv_head * layout.group()..(kv_head + 1) * layout.group();
            let of_head = |head: usize| {
                let numbers = queries.chunks_exact(dim).skip(head).step_by(layout.query_heads);
                let numbers: Vec<f32> = numbers.flatten().copied().collect();
                Array2::from_shape_vec((numbers.len() / dim, dim), numbers).unwrap_or_default()
            };
            let heads: Vec<Array2<f32>> = of_group.map(of_head).collect();
            let both = self.attention(keys.slice(s![..prefix, ..]), &heads).into_iter().zip(self.likeness(keys));
            for (score, (attention, likeness)) in scores.iter_mut().zip(both) {
                *score = importance * attention - (1.0 - importance) * likeness;
            }
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compressors::closed_form::Prompt;

    #[test]
    fn scores_of_the_closed_form() {
        let (prompt, r_kv) = (Prompt::new(16), "{ name = 'r-kv', window = 4, kernel = 3 }");
        let scores = prompt.score(&crate::compressors::closed_form::method(r_kv));
        let expected = [
            [
                -0.0505, -0.0450, -0.0466, -0.0512, -0.0525, -0.0403, -0.0328, -0.0369, -0.0352, -0.0407, -0.0518,
                -0.0498,
            ],
            [
                -0.0654, -0.0514, -0.0483, -0.0525, -0.0292, -0.0182, -0.0183, -0.0360, -0.0402, -0.0418, -0.0566,
                -0.0519,
            ],
        ];
        for (head, expected) in expected.iter().enumerate() {
            for (token, expected) in expected.iter().enumerate() {
                let ours: f32 = scores[head * 16 + token];
                assert!((ours - expected).abs() < 6e-5, "head {head}, token {token}: {ours} and not {expected}");
            }
        }
        let with_window = |prefix: [u32; 4]| prefix.into_iter().chain(12..16).collect::<Vec<u32>>();
        assert_eq!(prompt.kept(r_kv, 8), [with_window([5, 6, 7, 8]), with_window([4, 5, 6, 7])]);
    }

    /// Four keys alike and one that is not.
    #[test]
    fn of_like_keys_the_youngest_is_spared() {
        let keys = Array2::from_shape_vec((5, 2), vec![1.0, 0.0, 1.0, 0.01, 0.0, 1.0, 1.0, 0.02, 1.0, 0.03]).unwrap();
        let likeness = RKv::default().likeness(keys.view());
        assert!(likeness[2] < likeness[0] && likeness[4] < likeness[0], "{likeness:?}");
        assert!((likeness.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }
}
