//! From query heads to the KV heads that they share.

use cokv_core::HeadLayout;

/// Mean over each group: `[query_heads, tokens]` becomes `[kv_heads, tokens]`.
pub fn group_mean(layout: HeadLayout, query_heads: &[f32], tokens: usize) -> Vec<f32> {
    let group = layout.group();
    let mut mean = vec![0.0; layout.kv_heads * tokens];
    if tokens > 0 {
        for (query_head, scores) in query_heads.chunks_exact(tokens).enumerate() {
            let sums = &mut mean[query_head / group * tokens..][..tokens];
            sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += score / group as f32);
        }
    }
    mean
}

/// Maximum over each group, likewise.
pub fn group_max(layout: HeadLayout, query_heads: &[f32], tokens: usize) -> Vec<f32> {
    let group = layout.group();
    let mut highest = vec![f32::NEG_INFINITY; layout.kv_heads * tokens];
    for (query_head, scores) in query_heads.chunks_exact(tokens.max(1)).enumerate() {
        let of_head = &mut highest[query_head / group * tokens..][..tokens];
        of_head.iter_mut().zip(scores).for_each(|(highest, &score)| *highest = highest.max(score));
    }
    highest
}

/// One value for every token of every KV head: `[kv_heads, tokens, head_dim]` becomes `[kv_heads, tokens]`.
pub fn per_token(layout: HeadLayout, vectors: &[f32], value: impl Fn(&[f32]) -> f32) -> Vec<f32> {
    vectors.chunks_exact(layout.head_dim).map(value).collect()
}

/// Length of a vector.
pub fn norm(vector: &[f32]) -> f32 {
    vector.iter().map(|x| x * x).sum::<f32>().sqrt()
}
