//! LagKV (Liang et al., arXiv 2504.04704): tokens that stand out from those that follow.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, ObservationRequest, PolicyError, Protected,
};
use serde::{Deserialize, Serialize};

use super::softmax::softmax;

/// Cuts the prompt behind the sinks into partitions of `lag` tokens. A token's channels are normalised by the range that
/// they have in the *next* partition; the more they then differ from each other, for key and value alike, the higher the
/// token ranks inside its partition. Every partition but the last loses the same share.
///
/// The last partition and what is left behind it are kept first. A prompt of less than two partitions keeps its latest
/// tokens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LagKv {
    /// Tokens kept at the start.
    pub sinks: usize,
    /// Tokens of a partition, at least 2.
    pub lag: usize,
}

impl Default for LagKv {
    fn default() -> Self {
        Self { sinks: 4, lag: 128 }
    }
}

impl LagKv {
    /// Refuses a partition in which nothing can be compared.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        match self.lag {
            0 | 1 => Err(settings.error_at("lag", format!("lagkv needs a lag of at least 2 tokens; got {}", self.lag))),
            _ => Ok(self),
        }
    }

    /// Scores of one head from its keys and values, `[prompt_len, head_dim]`.
    fn head(&self, keys: &[f32], values: &[f32], head_dim: usize) -> Vec<f32> {
        let tokens = keys.len() / head_dim;
        let partitions = tokens.saturating_sub(self.sinks) / self.lag.max(1);
        if partitions < 2 {
            return (0..tokens).map(|token| token as f32 / tokens as f32).collect();
        }
        let mut scores = vec![1.0; tokens];
        let width = self.lag * head_dim;
        for partition in 0..partitions - 1 {
            let start = self.sinks + partition * self.lag;
            let of = |vectors: &[f32]| {
                let both = &vectors[start * head_dim..][..2 * width];
                distinctness(&both[..width], &both[width..], head_dim)
            };
            let mean: Vec<f32> = of(keys).iter().zip(of(values)).map(|(key, value)| (key + value) / 2.0).collect();
            let mut ascending: Vec<usize> = (0..self.lag).collect();
            ascending.sort_by(|&a, &b| mean[a].total_cmp(&mean[b]));
            for (rank, token) in ascending.into_iter().enumerate() {
                scores[start + token] = rank as f32 / self.lag as f32;
            }
        }
        scores
    }
}

impl CacheCompressor for LagKv {
    fn observations(&self, _frame: Frame) -> ObservationRequest {
        ObservationRequest { keys: true, values: true, ..Default::default() }
    }

    fn protected(&self, _frame: Frame) -> Protected {
        Protected { sinks: self.sinks, window: 0 }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let keys = layer.recorded("keys", layer.keys)?;
        let values = layer.recorded("values", layer.values)?;
        let head_dim = layer.layout.head_dim;
        let width = (layer.prompt_len * head_dim).max(1);
        let heads = keys.chunks_exact(width).zip(values.chunks_exact(width));
        Ok(heads.flat_map(|(keys, values)| self.head(keys, values, head_dim)).collect())
    }
}

/// Softmax over the tokens of a partition of the standard deviation over channels, each normalised by the range it has in
/// `next`. A channel without a range there says nothing and counts as 0.
fn distinctness(partition: &[f32], next: &[f32], head_dim: usize) -> Vec<f32> {
    let range = |channel: usize| {
        let values = next.iter().skip(channel).step_by(head_dim).copied();
        (values.clone().fold(f32::INFINITY, f32::min), values.fold(f32::NEG_INFINITY, f32::max))
    };
    let ranges: Vec<(f32, f32)> = (0..head_dim).map(range).collect();
    let normalised = |x: &f32, &(low, high): &(f32, f32)| if high > low { (x - low) / (high - low) } else { 0.0 };
    let deviation = |vector: &[f32]| {
        let channels: Vec<f32> = vector.iter().zip(&ranges).map(|(x, range)| normalised(x, range)).collect();
        let mean = channels.iter().sum::<f32>() / head_dim as f32;
        let squares: f32 = channels.iter().map(|x| (x - mean) * (x - mean)).sum();
        (squares / head_dim.saturating_sub(1).max(1) as f32).sqrt()
    };
    let deviations: Vec<f32> = partition.chunks_exact(head_dim).map(deviation).collect();
    softmax(&deviations)
}
