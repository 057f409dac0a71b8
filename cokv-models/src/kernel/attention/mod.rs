//! Causal attention over ragged caches: prefill, teacher forcing, decoding and coalitions are the same kernel.
//!
//! Work is cut into pieces (`work.rs`): queries stacked as one matrix against a range of one KV head's keys, so that each
//! key and value is read once for all of them. Scores go through an online softmax tile by tile, so that memory grows
//! with the tile and not with the prompt. Tiles are counted from the start of the cache, wherever its rows lie: a shared
//! prompt and a copy of it give the same bits.

mod few;
mod summaries;
mod work;

use std::cell::RefCell;
use std::ops::Range;

use cokv_core::HeadLayout;

pub use self::summaries::{column_sums, window_attention};
use self::work::{Block, Piece, Work, cut};
use super::matmul::{FEW_ROWS, multiply_add, multiply_transposed};
use super::pool;
use super::simd::{LANES, dispatch, exp_row};
use crate::cache::{Elements, HeadRows, HeadView, RaggedCache};

/// Query positions that are stacked into one matrix.
const QUERIES: usize = 32;
/// The same, where rows of a batch share the keys.
const STACKED_QUERIES: usize = 64;
/// Keys of a tile.
const KEYS: usize = 256;
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

    let Work { blocks, pieces } = cut(layout, layer, rows);
    let partials = pool::map(pieces.len(), |index| attend_piece(layout, layer, rows, &blocks, &pieces[index]));

    // Where each block's queries stand in the stacks of the pieces that hold them.
    let mut parts: Vec<Vec<(usize, usize)>> = vec![Vec::new(); blocks.len()];
    for (index, piece) in pieces.iter().enumerate() {
        let mut at = 0;
        for &block in &piece.blocks {
            parts[block].push((index, at));
            at += blocks[block].queries.len() * group;
        }
    }
    let mut attention =
        Attention { output: vec![0.0; tokens * width], log_sum_exp: vec![f32::NEG_INFINITY; tokens * query_heads] };
    for (block, parts) in blocks.iter().zip(&parts) {
        for (index, query) in block.queries.clone().enumerate() {
            let token = starts[block.row] + query;
            for member in 0..group {
                let head = block.kv_head * group + member;
                let output = &mut attention.output[token * width + head * head_dim..][..head_dim];
                let stacked = parts.iter().map(|&(piece, at)| (&partials[piece], at + index * group + member));
                attention.log_sum_exp[token * query_heads + head] = merge(stacked, head_dim, output);
            }
        }
    }
    attention
}

/// Writes the softmax average over all partials and returns the logarithm of the sum of exponentials.
fn merge<'a>(parts: impl Iterator<Item = (&'a Partial, usize)> + Clone, head_dim: usize, output: &mut [f32]) -> f32 {
    let max = parts.clone().map(|(partial, row)| partial.max[row]).fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for (partial, row) in parts.filter(|(partial, row)| partial.sum[*row] > 0.0) {
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

fn attend_piece(layout: HeadLayout, layer: usize, rows: &[Row<'_>], blocks: &[Block], piece: &Piece) -> Partial {
    SCRATCH.with_borrow_mut(|scratch| {
        let HeadLayout { head_dim, .. } = layout;
        let group = layout.group();
        // Keys that every stacked query may see, for each of them.
        let mut visible = Vec::new();
        scratch.queries.clear();
        for block in piece.blocks.iter().map(|&block| &blocks[block]) {
            let row = &rows[block.row];
            let before = row.cache.len(layer, block.kv_head) - row.tokens(layout);
            visible.extend(block.queries.clone().flat_map(|query| std::iter::repeat_n(before + query + 1, group)));
            stack_queries(layout, row.queries, block.queries.clone(), block.kv_head, &mut scratch.queries);
        }
        let count = visible.len();
        // All blocks of a piece see the same keys there; the first block's cache has them.
        let first = &blocks[piece.blocks[0]];
        let head = rows[first.row].cache.view(layer, first.kv_head);

        let mut partial =
            Partial { max: vec![f32::NEG_INFINITY; count], sum: vec![0.0; count], values: vec![0.0; count * head_dim] };
        for start in piece.keys.clone().step_by(KEYS) {
            let range = start..piece.keys.end.min(start + KEYS);
            let width = range.len();
            scratch.scores.resize(count * width, 0.0);
            if count <= FEW_ROWS {
                let mut done = 0;
                for (keys, elements) in head.segments(HeadRows::keys, range.clone(), head_dim) {
                    let tokens = elements.len() / head_dim;
                    few::score(&scratch.queries, keys, elements, head_dim, &mut scratch.scores[done..], width);
                    done += tokens;
                }
            } else {
                let keys = head.load(HeadRows::keys, range.clone(), head_dim, &mut scratch.keys);
                multiply_transposed(&scratch.queries, keys, head_dim, &mut scratch.scores);
            }
            for (index, scores) in scratch.scores.chunks_exact_mut(width).enumerate() {
                softmax_step(scores, visible[index].saturating_sub(start), index, head_dim, &mut partial);
            }
            if count <= FEW_ROWS {
                let mut done = 0;
                for (values, elements) in head.segments(HeadRows::values, range, head_dim) {
                    let tokens = elements.len() / head_dim;
                    few::add_weighted(&scratch.scores[done..], width, values, elements, head_dim, &mut partial.values);
                    done += tokens;
                }
            } else {
                let values = head.load(HeadRows::values, range, head_dim, &mut scratch.values);
                multiply_add(&scratch.scores, values, width, head_dim, &mut partial.values);
            }
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

/// Appends the queries of some positions that share a KV head, as `[positions, group, head_dim]`, scaled.
fn stack_queries(layout: HeadLayout, queries: &[f32], positions: Range<usize>, kv_head: usize, out: &mut Vec<f32>) {
    let scale = (layout.head_dim as f32).sqrt().recip();
    let width = layout.query_heads * layout.head_dim;
    let group_width = layout.group() * layout.head_dim;
    for position in positions {
        let start = position * width + kv_head * group_width;
        out.extend(queries[start..start + group_width].iter().map(|q| q * scale));
    }
}

impl<'a> HeadView<'a> {
    /// Where keys or values of a range of the head's tokens lie: the first of them in the shared prompt, the others in the
    /// head's own rows. Ranges are of elements and are not empty.
    fn segments(
        &self,
        part: impl Fn(&'a HeadRows) -> &'a Elements,
        range: Range<usize>,
        head_dim: usize,
    ) -> impl Iterator<Item = (&'a Elements, Range<usize>)> {
        let shared = range.start.min(self.shared_len)..range.end.min(self.shared_len);
        let own = range.start.max(self.shared_len) - self.shared_len..range.end.max(self.shared_len) - self.shared_len;
        let elements =
            |start: usize, rows: &Range<usize>| (start + rows.start) * head_dim..(start + rows.end) * head_dim;
        let shared = self.prompt.map(|prompt| (part(prompt), elements(self.shared_start, &shared)));
        let own = (part(self.own), elements(0, &own));
        shared.into_iter().chain([own]).filter(|(_, elements)| !elements.is_empty())
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
        let mut segments = self.segments(part, range.clone(), head_dim);
        let (first, second) = (segments.next(), segments.next());
        if let (Some((elements, range)), None) = (&first, &second)
            && let Some(whole) = elements.as_f32()
        {
            return &whole[range.clone()];
        }
        scratch.resize(range.len() * head_dim, 0.0);
        let mut done = 0;
        for (elements, range) in first.into_iter().chain(second) {
            let out = &mut scratch[done..done + range.len()];
            done += range.len();
            elements.widen(range, out);
        }
        scratch
    }
}

#[cfg(test)]
mod tests;
