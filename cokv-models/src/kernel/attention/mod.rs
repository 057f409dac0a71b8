//! Causal attention over ragged caches: prefill, teacher forcing, decoding and coalitions are the same kernel.
//!
//! Work is cut into pieces (`work.rs`): queries stacked as one matrix against a range of one KV head's keys, so that each
//! key and value is read once for all of them. Scores go through an online softmax tile by tile, so that memory grows
//! with the tile and not with the prompt. Tiles are counted from the start of the cache, wherever its rows lie: a shared
//! segment and a copy of it give the same bits. Tiles that lie before the sliding windows of all queries of a piece are not read.

mod few;
mod partial;
mod piece;
mod summaries;
mod view;
mod work;

use std::cell::RefCell;
use std::ops::Range;

use cokv_core::HeadLayout;

use self::partial::Partial;
use self::piece::attend_piece;
pub(crate) use self::piece::{max_row, stack_scaled};
pub use self::summaries::{column_sums, window_attention};
pub use self::view::{CacheView, HeadView, SLICES, SliceView};
use self::work::Work;
use super::parts::Parts;
use super::pool;

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
    pub cache: CacheView<'a>,
    /// Tokens of each KV head that lie before the sliding window of each new token, ascending: `[kv_heads, tokens]`. Empty
    /// where none does.
    pub hidden: &'a [usize],
}

impl Row<'_> {
    fn tokens(&self, layout: HeadLayout) -> usize {
        self.queries.len() / (layout.query_heads * layout.head_dim)
    }

    /// Tokens of a KV head that a query may see.
    fn visible(&self, layout: HeadLayout, layer: usize, kv_head: usize, query: usize) -> Range<usize> {
        let tokens = self.tokens(layout);
        let first = self.hidden.get(kv_head * tokens + query).copied().unwrap_or(0);
        first..self.cache.head(layer, kv_head).tokens() - tokens + query + 1
    }
}

/// What attention of some rows gives.
#[derive(Default)]
pub struct Attention {
    /// `[all tokens of all rows, query_heads, head_dim]`
    pub output: Vec<f32>,
    /// Logarithm of the sum of exponentials of the scaled scores: `[all tokens of all rows, query_heads]`.
    pub log_sum_exp: Vec<f32>,
}

/// Attention of every new token to its own cache, scaled by `1 / sqrt(head_dim)`.
pub fn attend(layout: HeadLayout, layer: usize, rows: &[Row<'_>]) -> Attention {
    let mut attention = Attention::default();
    attend_into(layout, layer, rows, &mut attention);
    attention
}

/// The same into buffers that are there already. A step like the one before allocates nothing.
pub fn attend_into(layout: HeadLayout, layer: usize, rows: &[Row<'_>], attention: &mut Attention) {
    let HeadLayout { query_heads, head_dim, .. } = layout;
    let tokens: usize = rows.iter().map(|row| row.tokens(layout)).sum();
    attention.output.clear();
    attention.output.resize(tokens * query_heads * head_dim, 0.0);
    attention.log_sum_exp.clear();
    attention.log_sum_exp.resize(tokens * query_heads, f32::NEG_INFINITY);
    WORKSPACE.with_borrow_mut(|Workspace { work, partials, sums }| {
        work.cut(layout, layer, rows);
        partials.resize(partials.len().max(work.partials_len), 0.0);
        let parts = Parts::of(partials);
        pool::for_each(work.pieces.len(), |index| {
            let piece = &work.pieces[index];
            // SAFETY: every piece is run once, and their partial results do not overlap.
            let numbers = unsafe { parts.part(piece.partial.clone()) };
            attend_piece(layout, layer, rows, &work.blocks, piece, Partial::of(numbers, head_dim));
        });
        merge(layout, work, partials, sums, attention);
    });
}

/// What is kept from call to call.
#[derive(Default)]
struct Workspace {
    work: Work,
    /// What each piece found, where it says.
    partials: Vec<f32>,
    /// Sums of exponentials so far: `[all tokens of all rows, query_heads]`.
    sums: Vec<f32>,
}

thread_local! {
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// Joins the pieces, each of which saw some of the keys, in the order of their keys.
fn merge(layout: HeadLayout, work: &Work, partials: &mut [f32], sums: &mut Vec<f32>, attention: &mut Attention) {
    let HeadLayout { query_heads, head_dim, .. } = layout;
    let group = layout.group();
    sums.clear();
    sums.resize(attention.log_sum_exp.len(), 0.0);
    for piece in &work.pieces {
        let partial = Partial::of(&mut partials[piece.partial.clone()], head_dim);
        let mut stacked = 0;
        for block in &work.blocks[piece.blocks.clone()] {
            for query in block.queries.clone() {
                for member in 0..group {
                    let at = (block.start + query) * query_heads + block.kv_head * group + member;
                    let output = &mut attention.output[at * head_dim..(at + 1) * head_dim];
                    let max = &mut attention.log_sum_exp[at];
                    partial.merge_into(stacked, max, &mut sums[at], output);
                    stacked += 1;
                }
            }
        }
    }
    for (at, output) in attention.output.chunks_exact_mut(head_dim).enumerate() {
        output.iter_mut().for_each(|out| *out /= sums[at]);
        attention.log_sum_exp[at] += sums[at].ln();
    }
}

#[cfg(test)]
mod tests;
