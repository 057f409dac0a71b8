//! Causal attention over ragged caches: prefill, teacher forcing and decoding are the same kernel.
//!
//! Work is cut into (row, KV head, block of queries, range of keys). The query heads of a group are stacked as rows of
//! one matrix, so that each key and value is read once for all of them; scores go through an online softmax tile by
//! tile, so that memory grows with the tile and not with the prompt. Tiles are counted from the start of the cache,
//! wherever its rows lie: a shared prompt and a copy of it give the same bits.

use std::cell::RefCell;
use std::ops::Range;

use cokv_core::HeadLayout;

use super::matmul::{FEW_ROWS, multiply_add, multiply_transposed};
use super::pool;
use super::simd::{LANES, dispatch, exp_row};
use crate::cache::{Elements, HeadRows, HeadView, RaggedCache};

/// Query positions that are stacked into one matrix.
const QUERIES: usize = 32;
/// Keys of a tile when the matrix has many rows (a product of matrices) and few (dot products out of the first-level cache).
const KEYS: usize = 256;
const KEYS_FOR_FEW_ROWS: usize = 64;
/// Keys of one piece of work when there are few rows: a long head is split so that it does not hold up the rest.
const KEYS_PER_PIECE: usize = 1024;

/// New tokens of one sequence; their keys and values are already appended to the cache.
pub struct Row<'a> {
    /// After RoPE: `[tokens, query_heads, head_dim]`.
    pub queries: &'a [f32],
    /// The sequence's cache.
    pub cache: &'a RaggedCache,
}

impl Row<'_> {
    fn tokens(&self, layout: HeadLayout) -> usize {
        self.queries.len() / (layout.query_heads * layout.head_dim)
    }
}

struct Piece {
    row: usize,
    kv_head: usize,
    queries: Range<usize>,
    keys: Range<usize>,
}

/// Softmax over some of the keys, to be merged with the others'.
struct Partial {
    /// `[queries, group]`
    max: Vec<f32>,
    /// `[queries, group]`
    sum: Vec<f32>,
    /// Weighted values, not yet divided by the sum: `[queries, group, head_dim]`.
    values: Vec<f32>,
}

/// What attention of some rows gives.
pub struct Attention {
    /// `[all tokens of all rows, query_heads, head_dim]`
    pub output: Vec<f32>,
    /// Logarithm of the sum of exponentials of the scaled scores: `[all tokens of all rows, query_heads]`.
    pub log_sum_exp: Vec<f32>,
}

/// Attention of every new token to its own cache, scaled by `1 / sqrt(head_dim)`.
pub fn attend(layout: HeadLayout, layer: usize, rows: &[Row<'_>]) -> Attention {
    let HeadLayout { query_heads, head_dim, .. } = layout;
    let group = layout.group();
    let width = query_heads * head_dim;
    let mut starts = Vec::with_capacity(rows.len());
    let mut tokens = 0;
    for row in rows {
        starts.push(tokens);
        tokens += row.tokens(layout);
    }

    let pieces = cut(layout, layer, rows);
    let partials = pool::map(pieces.len(), |index| {
        let piece = &pieces[index];
        let row = &rows[piece.row];
        attend_piece(layout, row, row.cache.view(layer, piece.kv_head), piece)
    });

    let mut attention =
        Attention { output: vec![0.0; tokens * width], log_sum_exp: vec![f32::NEG_INFINITY; tokens * query_heads] };
    // Pieces of the same queries stand next to each other, in the order of their keys.
    let mut at = 0;
    while at < pieces.len() {
        let first = &pieces[at];
        let same = |other: &Piece| {
            (other.row, other.kv_head, other.queries.start) == (first.row, first.kv_head, first.queries.start)
        };
        let count = pieces[at..].iter().take_while(|piece| same(piece)).count();
        for (index, query) in first.queries.clone().enumerate() {
            let token = starts[first.row] + query;
            for member in 0..group {
                let head = first.kv_head * group + member;
                let output = &mut attention.output[token * width + head * head_dim..][..head_dim];
                attention.log_sum_exp[token * query_heads + head] =
                    merge(&partials[at..at + count], index * group + member, head_dim, output);
            }
        }
        at += count;
    }
    attention
}

fn cut(layout: HeadLayout, layer: usize, rows: &[Row<'_>]) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let tokens = row.tokens(layout);
        for kv_head in 0..layout.kv_heads {
            let before = row.cache.len(layer, kv_head) - tokens;
            for start in (0..tokens).step_by(QUERIES) {
                let queries = start..tokens.min(start + QUERIES);
                let visible = before + queries.end;
                let few = queries.len() * layout.group() <= FEW_ROWS;
                let step = if few { KEYS_PER_PIECE } else { visible };
                for key in (0..visible).step_by(step) {
                    let keys = key..visible.min(key + step);
                    pieces.push(Piece { row: index, kv_head, queries: queries.clone(), keys });
                }
            }
        }
    }
    pieces
}

/// Writes the softmax average over all partials and returns the logarithm of the sum of exponentials.
fn merge(partials: &[Partial], row: usize, head_dim: usize, output: &mut [f32]) -> f32 {
    let max = partials.iter().map(|partial| partial.max[row]).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for partial in partials.iter().filter(|partial| partial.sum[row] > 0.0) {
        let scale = (partial.max[row] - max).exp();
        total += scale * partial.sum[row];
        let values = &partial.values[row * head_dim..(row + 1) * head_dim];
        output.iter_mut().zip(values).for_each(|(out, value)| *out += scale * value);
    }
    output.iter_mut().for_each(|out| *out /= total);
    max + total.ln()
}

#[derive(Default)]
struct Scratch {
    queries: Vec<f32>,
    scores: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

fn attend_piece(layout: HeadLayout, row: &Row<'_>, head: HeadView<'_>, piece: &Piece) -> Partial {
    SCRATCH.with_borrow_mut(|scratch| {
        let HeadLayout { head_dim, .. } = layout;
        let group = layout.group();
        let before = head.len() - row.tokens(layout);
        let count = piece.queries.len() * group;
        stack_queries(layout, row.queries, piece.queries.clone(), piece.kv_head, &mut scratch.queries);

        let mut partial =
            Partial { max: vec![f32::NEG_INFINITY; count], sum: vec![0.0; count], values: vec![0.0; count * head_dim] };
        let tile = if count <= FEW_ROWS { KEYS_FOR_FEW_ROWS } else { KEYS };
        for start in piece.keys.clone().step_by(tile) {
            let range = start..piece.keys.end.min(start + tile);
            let width = range.len();
            let keys = head.load(HeadRows::keys, range.clone(), head_dim, &mut scratch.keys);
            scratch.scores.resize(count * width, 0.0);
            multiply_transposed(&scratch.queries, keys, head_dim, &mut scratch.scores);
            for (index, scores) in scratch.scores.chunks_exact_mut(width).enumerate() {
                let visible = before + piece.queries.start + index / group + 1;
                softmax_step(scores, visible.saturating_sub(start), index, head_dim, &mut partial);
            }
            let values = head.load(HeadRows::values, range, head_dim, &mut scratch.values);
            multiply_add(&scratch.scores, values, width, head_dim, &mut partial.values);
        }
        partial
    })
}

/// Turns the scores of one tile into weights relative to the largest score so far, and rescales what was summed before.
fn softmax_step(scores: &mut [f32], visible: usize, row: usize, head_dim: usize, partial: &mut Partial) {
    let visible = visible.min(scores.len());
    scores[visible..].fill(0.0);
    if visible == 0 {
        return;
    }
    let scores = &mut scores[..visible];
    let max = max_row(scores).max(partial.max[row]);
    let sum = exp_row(scores, max);
    if max > partial.max[row] {
        let scale = (partial.max[row] - max).exp();
        partial.sum[row] *= scale;
        partial.values[row * head_dim..(row + 1) * head_dim].iter_mut().for_each(|value| *value *= scale);
        partial.max[row] = max;
    }
    partial.sum[row] += sum;
}

dispatch! {
    /// The largest element; minus infinity for none.
    pub fn max_row(row: &[f32]) -> f32 = max_row_body
}

#[inline(always)]
fn max_row_body<const FMA: bool>(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let blocks = row.chunks_exact(LANES);
    let rest = blocks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for block in blocks {
        for lane in 0..LANES {
            lanes[lane] = if block[lane] > lanes[lane] { block[lane] } else { lanes[lane] };
        }
    }
    lanes.into_iter().fold(rest, f32::max)
}

/// Gathers the queries of some positions that share a KV head, as `[positions, group, head_dim]`, scaled.
fn stack_queries(layout: HeadLayout, queries: &[f32], positions: Range<usize>, kv_head: usize, out: &mut Vec<f32>) {
    let scale = (layout.head_dim as f32).sqrt().recip();
    let width = layout.query_heads * layout.head_dim;
    let group_width = layout.group() * layout.head_dim;
    out.clear();
    for position in positions {
        let start = position * width + kv_head * group_width;
        out.extend(queries[start..start + group_width].iter().map(|q| q * scale));
    }
}

impl<'a> HeadView<'a> {
    fn len(&self) -> usize {
        self.shared_len + self.own.len()
    }

    /// Keys or values of a range of the head's tokens as f32, in place where they are stored so and in one piece.
    fn load<'s>(
        &self,
        part: impl Fn(&'a HeadRows) -> &'a Elements,
        range: Range<usize>,
        head_dim: usize,
        scratch: &'s mut Vec<f32>,
    ) -> &'s [f32]
    where
        'a: 's,
    {
        let shared = range.start.min(self.shared_len)..range.end.min(self.shared_len);
        let own = range.start.max(self.shared_len) - self.shared_len..range.end.max(self.shared_len) - self.shared_len;
        let elements = |rows: &Range<usize>| rows.start * head_dim..rows.end * head_dim;
        let shared_at = elements(&(shared.start + self.shared_start..shared.end + self.shared_start));
        let prompt = self.prompt.filter(|_| !shared.is_empty()).map(&part);
        if let Some(whole) = prompt.filter(|_| own.is_empty()).and_then(Elements::as_f32) {
            return &whole[shared_at];
        }
        if let Some(whole) = part(self.own).as_f32().filter(|_| shared.is_empty()) {
            return &whole[elements(&own)];
        }
        scratch.resize(range.len() * head_dim, 0.0);
        let (first, second) = scratch.split_at_mut(shared.len() * head_dim);
        if let Some(prompt) = prompt {
            prompt.widen(shared_at, first);
        }
        part(self.own).widen(elements(&own), second);
        scratch
    }
}

/// Attention that every key of one row's cache receives from the row's new tokens, summed over them:
/// `[query_heads, keys]`. `log_sum_exp` is what [`attend`] returned for the row. All heads must have the same length.
pub fn column_sums(layout: HeadLayout, layer: usize, row: &Row<'_>, log_sum_exp: &[f32]) -> Vec<f32> {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let group = layout.group();
    let tokens = row.tokens(layout);
    let keys = row.cache.len(layer, 0);
    let per_head = pool::map(kv_heads, |kv_head| {
        SCRATCH.with_borrow_mut(|scratch| {
            let head = row.cache.view(layer, kv_head);
            let before = keys - tokens;
            let mut sums = vec![0.0; group * keys];
            for first in (0..tokens).step_by(QUERIES) {
                let queries = first..tokens.min(first + QUERIES);
                let visible_to_last = before + queries.end;
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
pub fn window_attention(layout: HeadLayout, layer: usize, queries: &[f32], cache: &RaggedCache) -> Vec<f32> {
    let HeadLayout { query_heads, kv_heads, head_dim, .. } = layout;
    let group = layout.group();
    let window = queries.len() / (query_heads * head_dim);
    let prompt_len = cache.len(layer, 0);
    let per_head = pool::map(kv_heads, |kv_head| {
        let head = cache.view(layer, kv_head);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cokv_core::{HeadSelection, Selection};
    use proptest::prelude::*;

    use super::*;
    use crate::cache::CacheType;

    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        (0..count as u64).map(|i| ((i * 48_271 + seed * 7919) % 4001) as f32 / 2000.5 - 1.0).collect()
    }

    /// A cache of one layer that has seen `tokens` tokens.
    fn seen(layout: HeadLayout, cache_type: CacheType, tokens: usize) -> RaggedCache {
        let width = layout.kv_heads * layout.head_dim;
        let mut cache = RaggedCache::with_capacity(layout, cache_type, tokens);
        cache.append(0, &numbers(tokens * width, 1), &numbers(tokens * width, 2));
        cache.advance(tokens);
        cache
    }

    /// Softmax attention of one query in f64, over the tokens of the head that it may see.
    fn reference(layout: HeadLayout, row: &Row<'_>, query: usize, head: usize) -> Vec<f64> {
        let dim = layout.head_dim;
        let view = row.cache.view(0, head / layout.group());
        let visible = view.len() - row.queries.len() / (layout.query_heads * dim) + query + 1;
        let (mut key_scratch, mut value_scratch) = (Vec::new(), Vec::new());
        let keys = view.load(HeadRows::keys, 0..visible, dim, &mut key_scratch);
        let values = view.load(HeadRows::values, 0..visible, dim, &mut value_scratch);
        let q = &row.queries[(query * layout.query_heads + head) * dim..][..dim];
        let dot = |key: &[f32]| q.iter().zip(key).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
        let weights: Vec<f64> = keys.chunks_exact(dim).map(|key| (dot(key) / (dim as f64).sqrt()).exp()).collect();
        let sum: f64 = weights.iter().sum();
        (0..dim).map(|c| values.chunks_exact(dim).zip(&weights).map(|(v, w)| f64::from(v[c]) * w / sum).sum()).collect()
    }

    fn check(layout: HeadLayout, rows: &[Row<'_>]) {
        let attention = attend(layout, 0, rows);
        let mut at = 0;
        for row in rows {
            for query in 0..row.queries.len() / (layout.query_heads * layout.head_dim) {
                for head in 0..layout.query_heads {
                    let ours = &attention.output[at..at + layout.head_dim];
                    for (a, b) in ours.iter().zip(reference(layout, row, query, head)) {
                        assert!((f64::from(*a) - b).abs() < 2e-5, "query {query}, head {head}: {a} and {b}");
                    }
                    at += layout.head_dim;
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn attention_equals_the_reference(
            kv_heads in 1usize..4,
            group in 1usize..9,
            head_dim in prop::sample::select(vec![7usize, 16, 64, 80, 96, 128, 256]),
            before in prop::sample::select(vec![0usize, 1, 63, 64, 65, 300, 1100]),
            tokens in prop::sample::select(vec![1usize, 2, 31, 33, 70]),
            cache_type in prop::sample::select(vec![CacheType::F32, CacheType::F16, CacheType::Bf16]),
        ) {
            let layout = HeadLayout::new(1, kv_heads * group, kv_heads, head_dim).unwrap();
            let cache = seen(layout, cache_type, before + tokens);
            let queries = numbers(tokens * layout.query_heads * head_dim, 3);
            check(layout, &[Row { queries: &queries, cache: &cache }]);
        }

        #[test]
        fn rows_of_a_batch_have_their_own_ragged_caches(kept in proptest::collection::vec(0usize..90, 6), tokens in 1usize..4) {
            let layout = HeadLayout::new(1, 4, 2, 16).unwrap();
            let prompt = Arc::new(seen(layout, CacheType::F16, 90).into_prompt());
            let mut caches: Vec<RaggedCache> = kept.chunks_exact(2).map(|kept| {
                let heads = kept.iter().map(|&kept| match kept {
                    89 => HeadSelection::Everything,
                    kept => HeadSelection::Tokens((0..kept as u32).collect()),
                });
                RaggedCache::compressed(&prompt, &Selection { heads: heads.collect() })
            }).collect();
            for cache in &mut caches {
                cache.append(0, &numbers(tokens * 32, 5), &numbers(tokens * 32, 6));
            }
            let queries = numbers(tokens * 64, 7);
            let rows: Vec<Row<'_>> = caches.iter().map(|cache| Row { queries: &queries, cache }).collect();
            check(layout, &rows);
        }
    }

    #[test]
    fn sharing_the_prompt_and_copying_it_give_the_same_bits() {
        let layout = HeadLayout::new(1, 6, 2, 64).unwrap();
        for (cache_type, tokens) in [(CacheType::F32, 1), (CacheType::F16, 1), (CacheType::F16, 40)] {
            let prompt = Arc::new(seen(layout, cache_type, 777).into_prompt());
            let everything: Vec<u32> = (0..777).collect();
            let copied = Selection { heads: vec![HeadSelection::Tokens(everything); 2] };
            let mut caches = [RaggedCache::full(&prompt), RaggedCache::compressed(&prompt, &copied)];
            let queries = numbers(tokens * 6 * 64, 7);
            let [shared, copied] = caches.each_mut().map(|cache| {
                cache.append(0, &numbers(tokens * 128, 5), &numbers(tokens * 128, 6));
                attend(layout, 0, &[Row { queries: &queries, cache }]).output
            });
            assert_eq!(shared, copied);
        }
    }

    #[test]
    fn column_sums_and_window_attention_are_the_softmax_rows() {
        let layout = HeadLayout::new(1, 6, 2, 16).unwrap();
        let tokens = 300;
        let cache = seen(layout, CacheType::F32, tokens);
        let queries = numbers(tokens * 96, 3);
        let row = Row { queries: &queries, cache: &cache };
        let attention = attend(layout, 0, std::slice::from_ref(&row));
        let sums = column_sums(layout, 0, &row, &attention.log_sum_exp);
        // A window as long as the prompt holds every row.
        let rows = window_attention(layout, 0, &queries, &cache);
        for head in 0..6 {
            for key in 0..tokens {
                let exact: f64 = (0..tokens).map(|q| f64::from(rows[(head * tokens + q) * tokens + key])).sum();
                assert!((f64::from(sums[head * tokens + key]) - exact).abs() < 1e-4 * exact.max(1.0));
            }
            let total: f32 = sums[head * tokens..(head + 1) * tokens].iter().sum();
            assert!((total - tokens as f32).abs() < 0.01);
        }
    }
}
