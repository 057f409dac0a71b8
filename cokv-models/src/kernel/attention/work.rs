//! How attention is cut into pieces of parallel work.

use std::ops::Range;

use cokv_core::HeadLayout;

use super::{KEYS, KEYS_PER_PIECE, QUERIES, Row, STACKED_QUERIES};
use crate::kernel::matmul::FEW_ROWS;

/// Some queries of one row that attend to one KV head.
pub(super) struct Block {
    pub row: usize,
    pub kv_head: usize,
    /// Counted within the row's new tokens.
    pub queries: Range<usize>,
}

/// Stacked queries against a range of one KV head's keys.
pub(super) struct Piece {
    /// Indices of blocks of the same KV head. Where there are several, their rows share the slice of the prompt that
    /// `keys` lies in.
    pub blocks: Vec<usize>,
    /// Counted from the start of the cache.
    pub keys: Range<usize>,
}

pub(super) struct Work {
    pub blocks: Vec<Block>,
    /// Of every block, in the order of their keys.
    pub pieces: Vec<Piece>,
}

/// Rows that attend to the same slice of a prompt see it as one matrix product; what follows in each cache is the row's
/// own. A row whose slice few share is one range from its first key to its last.
pub(super) fn cut(layout: HeadLayout, layer: usize, rows: &[Row<'_>]) -> Work {
    let mut work = Work { blocks: Vec::new(), pieces: Vec::new() };
    for kv_head in 0..layout.kv_heads {
        for sharing in sharing(layer, kv_head, rows) {
            let first = work.blocks.len();
            for &row in &sharing.rows {
                let tokens = rows[row].tokens(layout);
                for start in (0..tokens).step_by(QUERIES) {
                    work.blocks.push(Block { row, kv_head, queries: start..tokens.min(start + QUERIES) });
                }
            }
            work.cut_shared(layout, first, sharing.keys);
            for block in first..work.blocks.len() {
                let Block { row, queries, .. } = &work.blocks[block];
                let before = rows[*row].cache.len(layer, kv_head) - rows[*row].tokens(layout);
                work.cut_keys(layout, vec![block], sharing.keys..before + queries.end);
            }
        }
    }
    work
}

impl Work {
    /// The keys below `shared`, for all blocks from `first` on, as many of them together as one matrix takes.
    fn cut_shared(&mut self, layout: HeadLayout, first: usize, shared: usize) {
        if shared == 0 {
            return;
        }
        let mut together: Vec<usize> = Vec::new();
        let mut queries = 0;
        for block in first..self.blocks.len() {
            let count = self.blocks[block].queries.len();
            if queries + count > STACKED_QUERIES && queries > 0 {
                self.cut_keys(layout, std::mem::take(&mut together), 0..shared);
                queries = 0;
            }
            together.push(block);
            queries += count;
        }
        self.cut_keys(layout, together, 0..shared);
    }

    /// One piece, or several where few queries face many keys: a long head must not hold up the rest.
    fn cut_keys(&mut self, layout: HeadLayout, blocks: Vec<usize>, keys: Range<usize>) {
        let queries: usize = blocks.iter().map(|&block| self.blocks[block].queries.len()).sum();
        let step = if queries * layout.group() <= FEW_ROWS { KEYS_PER_PIECE } else { keys.len().max(1) };
        for start in keys.clone().step_by(step) {
            self.pieces.push(Piece { blocks: blocks.clone(), keys: start..keys.end.min(start + step) });
        }
    }
}

/// Rows whose caches begin with the same slice of the same prompt.
struct Sharing {
    slice: Option<Slice>,
    rows: Vec<usize>,
    /// Keys that are worth a product of their own: whole tiles of the slice, none for few rows.
    keys: usize,
}

/// Rows that must share a slice to be one product. Fewer gain little, and left alone they have the bits of a row that
/// shares with nobody.
const ROWS_TOGETHER: usize = 4;

/// Where a shared slice lies in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Slice {
    head: usize,
    start: usize,
    len: usize,
}

fn sharing(layer: usize, kv_head: usize, rows: &[Row<'_>]) -> Vec<Sharing> {
    let mut groups: Vec<Sharing> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let view = row.cache.view(layer, kv_head);
        let head = view.prompt.filter(|_| view.shared_len >= KEYS).map(|head| std::ptr::from_ref(head).addr());
        let slice = head.map(|head| Slice { head, start: view.shared_start, len: view.shared_len });
        match groups.iter_mut().find(|group| slice.is_some() && group.slice == slice) {
            Some(group) => {
                group.rows.push(index);
                if group.rows.len() >= ROWS_TOGETHER {
                    group.keys = view.shared_len / KEYS * KEYS;
                }
            }
            None => groups.push(Sharing { slice, rows: vec![index], keys: 0 }),
        }
    }
    groups
}
