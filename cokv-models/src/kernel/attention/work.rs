//! How attention is cut into pieces of parallel work.

use std::ops::Range;

use cokv_core::HeadLayout;

use super::partial::Partial;
use super::{KEYS, KEYS_PER_PIECE, QUERIES, Row, STACKED_QUERIES};
use crate::kernel::matmul::FEW_ROWS;

/// Some queries of one row that attend to one KV head.
pub(super) struct Block {
    pub row: usize,
    pub kv_head: usize,
    /// Tokens of the rows before.
    pub start: usize,
    /// Counted within the row's new tokens.
    pub queries: Range<usize>,
    /// Keys that its first query may see, which sees the oldest.
    visible: Range<usize>,
}

impl Block {
    /// Where the first tile begins that one of its queries may see.
    fn first_key(&self) -> usize {
        self.visible.start / KEYS * KEYS
    }

    /// Behind the last key that its last query may see.
    fn last_key(&self) -> usize {
        self.visible.end + self.queries.len() - 1
    }
}

/// Stacked queries against a range of one KV head's keys.
pub(super) struct Piece {
    /// Of one KV head. Where there are several, their rows share the slice of a segment that `keys` lies in.
    pub blocks: Range<usize>,
    /// Counted from the start of the cache.
    pub keys: Range<usize>,
    /// Where the result goes.
    pub partial: Range<usize>,
}

/// Buffers that are filled anew for every call.
#[derive(Default)]
pub(super) struct Work {
    pub blocks: Vec<Block>,
    /// Of every block, in the order of their keys.
    pub pieces: Vec<Piece>,
    /// Numbers of all partial results.
    pub partials_len: usize,
    /// Of each row, the slice of a segment that its cache begins with.
    slices: Vec<Option<Slice>>,
}

/// Rows that must share a slice to be one product. Fewer gain little, and left alone they have the bits of a row that
/// shares with nobody.
const ROWS_TOGETHER: usize = 4;

impl Work {
    /// Rows that attend to the same slice of a segment see it as one matrix product; what follows in each cache is the
    /// row's own. A row whose slice few share is one range from its first key to its last.
    pub fn cut(&mut self, layout: HeadLayout, layer: usize, rows: &[Row<'_>]) {
        self.blocks.clear();
        self.pieces.clear();
        self.partials_len = 0;
        for kv_head in 0..layout.kv_heads {
            self.slices.clear();
            self.slices.extend(rows.iter().map(|row| slice(layer, kv_head, row)));
            for leader in 0..rows.len() {
                let shared = self.slices[leader];
                let alike =
                    |slices: &[Option<Slice>], row: usize| row == leader || shared.is_some() && slices[row] == shared;
                if (0..leader).any(|row| alike(&self.slices, row)) {
                    continue;
                }
                let first = self.blocks.len();
                let (mut start, mut together) = (0, 0);
                for (row, of_row) in rows.iter().enumerate() {
                    let tokens = of_row.tokens(layout);
                    if alike(&self.slices, row) {
                        together += 1;
                        for query in (0..tokens).step_by(QUERIES) {
                            let queries = query..tokens.min(query + QUERIES);
                            let visible = of_row.visible(layout, layer, kv_head, query);
                            self.blocks.push(Block { row, kv_head, start, queries, visible });
                        }
                    }
                    start += tokens;
                }
                // Whole tiles of the slice.
                let keys = shared.filter(|_| together >= ROWS_TOGETHER).map_or(0, |slice| slice.len / KEYS * KEYS);
                self.cut_shared(layout, first, keys);
                for block in first..self.blocks.len() {
                    let seen = self.blocks[block].first_key().max(keys)..self.blocks[block].last_key();
                    self.cut_keys(layout, block..block + 1, seen);
                }
            }
        }
    }

    /// The keys below `shared`, for all blocks from `first` on, as many of them together as one matrix takes.
    fn cut_shared(&mut self, layout: HeadLayout, first: usize, shared: usize) {
        if shared == 0 {
            return;
        }
        let (mut together, mut queries) = (first, 0);
        for block in first..self.blocks.len() {
            let count = self.blocks[block].queries.len();
            if queries + count > STACKED_QUERIES && queries > 0 {
                self.cut_shared_keys(layout, together..block, shared);
                (together, queries) = (block, 0);
            }
            queries += count;
        }
        self.cut_shared_keys(layout, together..self.blocks.len(), shared);
    }

    fn cut_shared_keys(&mut self, layout: HeadLayout, blocks: Range<usize>, shared: usize) {
        let first = self.blocks[blocks.clone()].iter().map(Block::first_key).min();
        self.cut_keys(layout, blocks, first.unwrap_or(0)..shared);
    }

    /// One piece, or several where few queries face many keys: a long head must not hold up the rest.
    fn cut_keys(&mut self, layout: HeadLayout, blocks: Range<usize>, keys: Range<usize>) {
        let queries: usize = self.blocks[blocks.clone()].iter().map(|block| block.queries.len()).sum();
        let rows = queries * layout.group();
        let step = if rows <= FEW_ROWS { KEYS_PER_PIECE } else { keys.len().max(1) };
        for start in keys.clone().step_by(step) {
            let partial = self.partials_len..self.partials_len + rows * Partial::len_of_one(layout.head_dim);
            self.partials_len = partial.end;
            self.pieces.push(Piece { blocks: blocks.clone(), keys: start..keys.end.min(start + step), partial });
        }
    }
}

/// Where a shared slice lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slice {
    head: usize,
    start: usize,
    len: usize,
}

/// The slice of a segment that a cache begins with, where it is long enough for a product of its own.
fn slice(layer: usize, kv_head: usize, row: &Row<'_>) -> Option<Slice> {
    let slice = row.cache.head(layer, kv_head).first_slice().filter(|slice| slice.len >= KEYS)?;
    Some(Slice { head: std::ptr::from_ref(slice.rows).addr(), start: slice.start, len: slice.len })
}
