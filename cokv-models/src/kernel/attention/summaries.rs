//! What policies look at: attention of the observation window, and the attention that every key receives.

use cokv_core::HeadLayout;

use super::piece::{SCRATCH, max_row, stack_queries};
use super::{CacheView, KEYS, QUERIES, Row};
use crate::kernel::matmul::multiply_transposed;
use crate::kernel::pool;
use crate::kernel::rows::HeadRows;
use crate::kernel::simd::exp_row;

/// Attention that every key of one row's cache receives from the row's new tokens, summed over them:
/// `[query_heads, keys]`. `log_sum_exp` is what [`attend`](super::attend) returned for the row. All heads must have the same length.
pub fn column_sums(layout: HeadLayout, layer: usize, row: &Row<'_>, log_sum_exp: &[f32]) -> Vec<f32> {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let group = layout.group();
    let tokens = row.tokens(layout);
    let keys = row.cache.head(layer, 0).tokens();
    let per_head = pool::map(kv_heads, |kv_head| {
        SCRATCH.with_borrow_mut(|scratch| {
            let head = row.cache.head(layer, kv_head);
            let before = keys - tokens;
            let mut sums = vec![0.0; group * keys];
            for first in (0..tokens).step_by(QUERIES) {
                let queries = first..tokens.min(first + QUERIES);
                let visible_to_last = before + queries.end;
                scratch.queries.clear();
                stack_queries(layout, row.queries, queries.clone(), kv_head, &mut scratch.queries);
                for start in (0..visible_to_last).step_by(KEYS) {
                    let range = start..visible_to_last.min(start + KEYS);
                    let width = range.len();
                    let tile = head.load(HeadRows::keys, range, head_dim, &mut scratch.keys);
                    scratch.scores.resize(queries.len() * group * width, 0.0);
                    multiply_transposed(&scratch.queries, tile, head_dim, &mut scratch.scores);
                    for (index, scores) in scratch.scores.chunks_exact_mut(width).enumerate() {
                        let (query, member) = (queries.start + index / group, index % group);
                        let visible = (before + query + 1).saturating_sub(start).min(width);
                        exp_row(&mut scores[..visible], log_sum_exp[query * query_heads + kv_head * group + member]);
                        let sums = &mut sums[member * keys + start..][..visible];
                        sums.iter_mut().zip(&*scores).for_each(|(sum, weight)| *sum += weight);
                    }
                }
            }
            sums
        })
    });
    per_head.concat()
}

/// Softmax attention of the last tokens of a prompt to all of it, `[query_heads, window, prompt_len]`, causal inside the
/// window. `queries` are those of the window after RoPE, `[window, query_heads, head_dim]`.
pub fn window_attention(layout: HeadLayout, layer: usize, queries: &[f32], cache: CacheView<'_>) -> Vec<f32> {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let group = layout.group();
    let window = queries.len() / (query_heads * head_dim);
    let prompt_len = cache.head(layer, 0).tokens();
    let per_head = pool::map(kv_heads, |kv_head| {
        let head = cache.head(layer, kv_head);
        let mut stacked = Vec::new();
        stack_queries(layout, queries, 0..window, kv_head, &mut stacked);
        let (mut keys, mut tile_scores) = (Vec::new(), Vec::new());
        // [group, window, prompt_len]; the stacked rows are [window, group].
        let mut attention = vec![0.0; group * window * prompt_len];
        let target = |index: usize| ((index % group) * window + index / group) * prompt_len;
        for start in (0..prompt_len).step_by(KEYS) {
            let range = start..prompt_len.min(start + KEYS);
            let width = range.len();
            let tile = head.load(HeadRows::keys, range, head_dim, &mut keys);
            tile_scores.resize(window * group * width, 0.0);
            multiply_transposed(&stacked, tile, head_dim, &mut tile_scores);
            for (index, scores) in tile_scores.chunks_exact(width).enumerate() {
                attention[target(index) + start..][..width].copy_from_slice(scores);
            }
        }
        for index in 0..window * group {
            let visible = prompt_len - window + index / group + 1;
            let row = &mut attention[target(index)..][..prompt_len];
            row[visible..].fill(0.0);
            let row = &mut row[..visible];
            let sum = exp_row(row, max_row(row));
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
        attention
    });
    per_head.concat()
}
