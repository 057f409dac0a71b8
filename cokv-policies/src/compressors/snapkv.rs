//! SnapKV (Li et al., arXiv 2404.14469): tokens that the last queries of the prompt attend to.

use cokv_core::{
    CacheCompressor, ConfigError, ConfigTable, Frame, LayerView, ObservationRequest, PolicyError, Protected,
};
use serde::{Deserialize, Serialize};

use super::pooling::{Pooling, check_kernel};
use super::window::{WindowFrom, check_window};

/// Scores a token by the attention that the observation window pays to it: mean over the window's queries, pooled along
/// the prompt, reduced over the query heads that share a KV head.
///
/// The defaults are those of HeadKV and CoKV. Others' settings are presets: `snapkv-paper`, `snapkv-longbench`,
/// `snapkv-kvcache-factory` (the defaults by name), `snapkv-kvpress`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SnapKv {
    /// Queries at the end of the prompt that vote; their own tokens are always kept.
    pub window: usize,
    /// Where the window ends. Behind a chat template, a window of 8 that ends with the user's text was the better one
    /// on SmolLM2-135M, on generated tasks and LongBench's questions, and no better on Qwen2.5-Coder-0.5B, so that the
    /// published way is the default.
    pub window_from: WindowFrom,
    /// Width of the pooling, odd.
    pub kernel: usize,
    /// What pooling takes of its neighbourhood.
    pub pooling: Pooling,
    /// How the query heads of a group are put together.
    pub group: GroupReduction,
    /// Which of the two comes first. Average pooling and the mean commute; maximum pooling does not.
    pub order: Order,
}

/// How scores of query heads become one score of their KV head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GroupReduction {
    /// Mean over the group.
    Mean,
    /// Maximum over the group.
    Max,
}

/// Order of pooling and group reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Reduce over the group, then pool (AdaKV, HeadKV, CoKV).
    ReduceFirst,
    /// Pool each query head, then reduce (kvpress).
    PoolFirst,
}

impl Default for SnapKv {
    fn default() -> Self {
        Self {
            window: 8,
            window_from: WindowFrom::default(),
            kernel: 7,
            pooling: Pooling::Max,
            group: GroupReduction::Mean,
            order: Order::ReduceFirst,
        }
    }
}

impl SnapKv {
    /// Refuses settings that contradict themselves.
    pub fn checked(self, settings: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        check_window(settings, "snapkv", self.window)?;
        check_kernel(settings, "snapkv", self.kernel)?;
        Ok(self)
    }

    /// What the query heads of a KV head say together, `[tokens]`.
    fn reduce(&self, heads: &[Vec<f32>]) -> Vec<f32> {
        let fold = |join: fn(f32, f32) -> f32| {
            let Some((first, others)) = heads.split_first() else { return Vec::new() };
            others.iter().fold(first.clone(), |mut joined, head| {
                joined.iter_mut().zip(head).for_each(|(joined, score)| *joined = join(*joined, *score));
                joined
            })
        };
        match self.group {
            GroupReduction::Mean => {
                fold(|sum, score| sum + score).into_iter().map(|sum| sum / heads.len() as f32).collect()
            }
            GroupReduction::Max => fold(f32::max),
        }
    }
}

impl CacheCompressor for SnapKv {
    fn observations(&self, frame: Frame) -> ObservationRequest {
        ObservationRequest { window_sums: vec![self.window_from.sum(self.window, frame.tail)], ..Default::default() }
    }

    fn protected(&self, frame: Frame) -> Protected {
        Protected { sinks: 0, window: self.window_from.reach(self.window, frame.tail) }
    }

    fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
        let prompt_len = layer.prompt_len;
        // Pooling must not see the window: its tokens attend to each other and are kept anyway.
        let prefix = self.protected(layer.frame).candidates(prompt_len).end;
        let window = self.window_from.sum(self.window, layer.frame.tail);
        let queries = window.queries(prompt_len).len() as f32;
        let mut scores = Vec::with_capacity(layer.layout.kv_heads * prompt_len);
        for kv_head in 0..layer.layout.kv_heads {
            let mut heads = Vec::with_capacity(layer.layout.group());
            for query_head in kv_head * layer.layout.group()..(kv_head + 1) * layer.layout.group() {
                let sum = &layer.window_sum(query_head, window)?[..prefix];
                heads.push(sum.iter().map(|sum| sum / queries).collect::<Vec<f32>>());
            }
            let pooled = match self.order {
                Order::ReduceFirst => self.pooling.pool(&self.reduce(&heads), self.kernel),
                Order::PoolFirst => {
                    let pool = |head: &Vec<f32>| self.pooling.pool(head, self.kernel);
                    self.reduce(&heads.iter().map(pool).collect::<Vec<_>>())
                }
            };
            scores.extend(pooled);
            scores.resize((kv_head + 1) * prompt_len, 0.0);
        }
        Ok(scores)
    }
}
