//! What was found out about a model once, from texts, for compressors that need it.

use crate::{HeadLayout, QueryStatistics};

/// Of every layer of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Learned {
    /// Hash of all that it was made from.
    pub fingerprint: String,
    /// `[layers]`
    pub layers: Vec<LearnedLayer>,
}

/// Of one layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LearnedLayer {
    /// Of its queries before RoPE, from [`QueryStatistics::FIRST_POSITION`] on.
    pub queries: QueryStatistics,
    /// Mean length of each two elements of a query that RoPE turns together: `[query_heads, head_dim / 2]`.
    pub lengths: Vec<f32>,
    /// The direction along which the queries of a KV head's group point after RoPE: the mean of their first right singular vectors,
    /// each turned so that queries project positively on it (Q-Filters, arXiv 2503.02812). `[kv_heads, head_dim]`
    pub directions: Vec<f32>,
    /// What guesses the logarithm of a token's KVzip+ score from its input to the layer: weights and, last, a constant
    /// (KVzap's linear form, arXiv 2601.07891). `[kv_heads, hidden_size + 1]`, or empty where it was not learned.
    pub guess: Vec<f32>,
}

impl LearnedLayer {
    /// The direction of a KV head: `[head_dim]`.
    pub fn direction(&self, layout: HeadLayout, kv_head: usize) -> &[f32] {
        &self.directions[kv_head * layout.head_dim..(kv_head + 1) * layout.head_dim]
    }

    /// Mean of a query head, `[head_dim]`, and the mean lengths of its pairs, `[head_dim / 2]`.
    pub fn query(&self, layout: HeadLayout, query_head: usize) -> (&[f32], &[f32]) {
        let dim = layout.head_dim;
        let mean = &self.queries.mean[query_head * dim..(query_head + 1) * dim];
        (mean, &self.lengths[query_head * (dim / 2)..(query_head + 1) * (dim / 2)])
    }
}
