//! Where the tokens of a cache stand in their sequence.

use super::segment::{Slice, before};

/// Positions of the tokens that each KV head holds, ascending, and of those that all heads will hold next. Heads are counted
/// flat.
#[derive(Clone, Copy, Debug)]
pub struct Places<'a> {
    pub(super) slices: &'a [Slice],
    /// Of each head's first own rows, where tokens before them were dropped.
    pub(super) kept: &'a [Vec<u32>],
    /// Of the own row behind them, which every head has: from there on each token is held.
    pub(super) since: usize,
}

impl<'a> Places<'a> {
    /// In the order of a head's rows, without an end.
    pub fn positions(self, head: usize) -> impl Iterator<Item = u32> + use<'a> {
        let shared = self.slices.iter().flat_map(move |slice| slice.positions(head));
        shared.chain(self.kept(head).iter().copied()).chain(self.since as u32..)
    }

    /// How many tokens before a position a head holds.
    pub fn before(self, head: usize, position: usize) -> usize {
        let shared: usize = self.slices.iter().map(|slice| slice.before(head, position)).sum();
        shared + before(self.kept(head), position) + position.saturating_sub(self.since)
    }

    fn kept(self, head: usize) -> &'a [u32] {
        self.kept.get(head).map_or(&[], Vec::as_slice)
    }
}
