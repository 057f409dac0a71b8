//! One piece of work: stacked queries against a range of one KV head's keys, tile by tile through an online softmax.

use std::cell::RefCell;
use std::ops::Range;

use cokv_core::HeadLayout;

use super::partial::Partial;
use super::work::{Block, Piece};
use super::{KEYS, Row, few};
use crate::kernel::matmul::{FEW_ROWS, multiply_add, multiply_transposed};
use crate::kernel::rows::HeadRows;
use crate::kernel::simd::{LANES, dispatch, exp_row};

/// Buffers of one thread.
#[derive(Default)]
pub(super) struct Scratch {
    pub queries: Vec<f32>,
    /// Keys that each stacked query may see.
    pub visible: Vec<Range<usize>>,
    pub scores: Vec<f32>,
    pub keys: Vec<f32>,
    pub values: Vec<f32>,
}

thread_local! {
    pub(super) static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Attends to the piece's keys.
pub(super) fn attend_piece(
    layout: HeadLayout,
    layer: usize,
    rows: &[Row<'_>],
    blocks: &[Block],
    piece: &Piece,
    mut partial: Partial<'_>,
) {
    SCRATCH.with_borrow_mut(|scratch| {
        partial.clear();
        let HeadLayout { head_dim, .. } = layout;
        // Keys that every stacked query may see, for each of them.
        scratch.visible.clear();
        scratch.queries.clear();
        let blocks = &blocks[piece.blocks.clone()];
        for block in blocks {
            let row = &rows[block.row];
            stack_visible(layout, layer, row, block.queries.clone(), block.kv_head, &mut scratch.visible);
            stack_queries(layout, row.queries, block.queries.clone(), block.kv_head, &mut scratch.queries);
        }
        let count = scratch.visible.len();
        // All blocks of a piece see the same keys there; the first block's cache has them.
        let Some(first) = blocks.first() else { return };
        let head = rows[first.row].cache.head(layer, first.kv_head);
        for start in piece.keys.clone().step_by(KEYS) {
            let range = start..piece.keys.end.min(start + KEYS);
            let width = range.len();
            scratch.scores.resize(count * width, 0.0);
            if count <= FEW_ROWS {
                few::score(&scratch.queries, &head, range.clone(), head_dim, &mut scratch.scores);
            } else {
                let keys = head.load(HeadRows::keys, range.clone(), head_dim, &mut scratch.keys);
                multiply_transposed(&scratch.queries, keys, head_dim, &mut scratch.scores);
            }
            head.add_biases(range.clone(), &mut scratch.scores);
            for (index, scores) in scratch.scores.chunks_exact_mut(width).enumerate() {
                softmax_step(scores, within(&scratch.visible[index], start, width), index, head_dim, &mut partial);
            }
            if count <= FEW_ROWS {
                few::add_weighted(&scratch.scores, &head, range, head_dim, partial.values);
            } else {
                let values = head.load(HeadRows::values, range, head_dim, &mut scratch.values);
                multiply_add(&scratch.scores, values, width, head_dim, partial.values);
            }
        }
    });
}

/// What is visible of a tile, counted from its start.
pub(super) fn within(visible: &Range<usize>, start: usize, width: usize) -> Range<usize> {
    let end = visible.end.saturating_sub(start).min(width);
    visible.start.saturating_sub(start).min(end)..end
}

/// Turns the scores of one tile into weights relative to the largest score so far, and rescales what was summed before.
fn softmax_step(scores: &mut [f32], visible: Range<usize>, row: usize, head_dim: usize, partial: &mut Partial<'_>) {
    scores[..visible.start].fill(0.0);
    scores[visible.end..].fill(0.0);
    if visible.is_empty() {
        return;
    }
    let scores = &mut scores[visible];
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

/// Appends what the queries of some positions may see, for each of the group.
pub(super) fn stack_visible(
    layout: HeadLayout,
    layer: usize,
    row: &Row<'_>,
    queries: Range<usize>,
    kv_head: usize,
    out: &mut Vec<Range<usize>>,
) {
    for query in queries {
        out.extend(std::iter::repeat_n(row.visible(layout, layer, kv_head, query), layout.group()));
    }
}

/// Appends the queries of some positions that share a KV head, as `[positions, group, head_dim]`, scaled.
pub(super) fn stack_queries(
    layout: HeadLayout,
    queries: &[f32],
    positions: Range<usize>,
    kv_head: usize,
    out: &mut Vec<f32>,
) {
    stack_scaled(layout, queries, positions, kv_head, (layout.head_dim as f32).sqrt().recip(), out);
}

/// The same with another scale.
pub fn stack_scaled(
    layout: HeadLayout,
    queries: &[f32],
    positions: Range<usize>,
    kv_head: usize,
    scale: f32,
    out: &mut Vec<f32>,
) {
    let width = layout.query_heads * layout.head_dim;
    let group_width = layout.group() * layout.head_dim;
    for position in positions {
        let start = position * width + kv_head * group_width;
        out.extend(queries[start..start + group_width].iter().map(|q| q * scale));
    }
}
