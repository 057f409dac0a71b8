//! What policies look at: attention of the observation window, and the attention that every key receives.

use cokv_core::HeadLayout;

use super::piece::{SCRATCH, max_row, stack_queries, stack_visible, within};
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
            let mut sums = vec![0.0; group * keys];
            for first in (0..tokens).step_by(QUERIES) {
                let queries = first..tokens.min(first + QUERIES);
                scratch.visible.clear();
                stack_visible(layout, layer, row, queries.clone(), kv_head, &mut scratch.visible);
                let [Some(first), Some(last)] = [scratch.visible.first(), scratch.visible.last()] else { break };
                let seen = first.start / KEYS * KEYS..last.end;
                scratch.queries.clear();
                stack_queries(layout, row.queries, queries.clone(), kv_head, &mut scratch.queries);
                for start in seen.clone().step_by(KEYS) {
                    let range = start..seen.end.min(start + KEYS);
                    let width = range.len();
                    let tile = head.load(HeadRows::keys, range, head_dim, &mut scratch.keys);
                    scratch.scores.resize(queries.len() * group * width, 0.0);
                    multiply_transposed(&scratch.queries, tile, head_dim, &mut scratch.scores);
                    for (index, scores) in scratch.scores.chunks_exact_mut(width).enumerate() {
                        let (query, member) = (queries.start + index / group, index % group);
                        let visible = within(&scratch.visible[index], start, width);
                        let scores = &mut scores[visible.clone()];
                        exp_row(scores, log_sum_exp[query * query_heads + kv_head * group + member]);
                        let sums = &mut sums[member * keys + start..][visible];
                        sums.iter_mut().zip(&*scores).for_each(|(sum, weight)| *sum += weight);
                    }
                }
            }
            sums
        })
    });
    per_head.concat()
}

/// Softmax attention of the last tokens of a prompt, the first `prompt_len` of a cache, to all of it, `[query_heads, window, prompt_len]`, causal inside the
/// window. `queries` are those of the window after RoPE, `[window, query_heads, head_dim]`. Where the layer has a sliding
/// window, of so many tokens, weights of what lies before it are 0.
pub fn window_attention(
    layout: HeadLayout,
    layer: usize,
    queries: &[f32],
    (cache, prompt_len): (CacheView<'_>, usize),
    sliding: Option<usize>,
) -> Vec<f32> {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let group = layout.group();
    let window = queries.len() / (query_heads * head_dim);
    let per_head = pool::map(kv_heads, |kv_head| {
        let head = cache.head(layer, kv_head);
        let mut stacked = Vec::new();
        stack_queries(layout, queries, 0..window, kv_head, &mut stacked);
        let (mut keys, mut tile_scores) = (Vec::new(), Vec::new());
        // [group, window, prompt_len]; the stacked rows are [window, group].
        let mut attention = vec![0.0; group * window * prompt_len];
        let target = |index: usize| ((index % group) * window + index / group) * prompt_len;
        let visible = |query: usize| {
            let end = prompt_len - window + query + 1;
            end.saturating_sub(sliding.unwrap_or(end))..end
        };
        for start in (visible(0).start / KEYS * KEYS..prompt_len).step_by(KEYS) {
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
            let visible = visible(index / group);
            let row = &mut attention[target(index)..][..prompt_len];
            row[..visible.start].fill(0.0);
            row[visible.end..].fill(0.0);
            let row = &mut row[visible];
            let sum = exp_row(row, max_row(row));
            row.iter_mut().for_each(|weight| *weight /= sum);
        }
        attention
    });
    per_head.concat()
}
