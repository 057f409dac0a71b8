//! Frozen keys and values that many caches share.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use cokv_core::{Format, HeadLayout, Pairs};

use super::store::Store;
use crate::error::ModelError;
use crate::ledger::Promise;

/// Segments that one cache shares at most: a document, and what was said of it before.
pub const SLICES: usize = crate::kernel::attention::SLICES;

/// Frozen keys and values, with a length for every KV head: a whole prompt, a compressed one, or a part of a conversation.
/// Computed once, shared by all methods, budgets, coalitions and requests.
#[derive(Debug)]
pub struct Segment {
    layout: HeadLayout,
    format: Format,
    seen: usize,
    positions: Positions,
    store: Arc<dyn Store>,
    /// What a ledger promised for its memory, with which it goes.
    promise: Arc<OnceLock<Promise>>,
    /// Of the store's rows of each head the first ones, where not all are the segment's.
    rows: Option<usize>,
}

/// Which tokens the rows are of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Positions {
    /// Of every head, one after the other from here on.
    From(usize),
    /// Of each head.
    Listed(Vec<Vec<u32>>),
}

impl Positions {
    /// Of each head's tokens.
    pub(super) fn of(listed: Vec<Vec<u32>>) -> Self {
        let first = listed.first().and_then(|positions| positions.first()).copied().unwrap_or_default();
        let follows = |positions: &Vec<u32>| positions.iter().zip(first..).all(|(&position, next)| position == next);
        let rows = listed.first().map_or(0, Vec::len);
        match listed.iter().all(|positions| positions.len() == rows && follows(positions)) {
            true => Self::From(first as usize),
            false => Self::Listed(listed),
        }
    }
}

impl Segment {
    pub(super) fn new(
        layout: HeadLayout,
        format: Format,
        seen: usize,
        positions: Positions,
        store: Box<dyn Store>,
    ) -> Self {
        let promise = Arc::default();
        Self { layout, format, seen, positions, store: store.into(), promise, rows: None }
    }

    /// Heads of the model.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// How its rows are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Tokens that the sequence had seen at its end, kept or not.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// Tokens that one KV head, counted flat, holds.
    pub fn len(&self, head: usize) -> usize {
        self.rows.unwrap_or(usize::MAX).min(self.store.rows(head))
    }

    /// Its first tokens alone, in the same memory: none where some of them were dropped.
    pub fn prefix(&self, tokens: usize) -> Option<Self> {
        let Positions::From(first) = self.positions else { return None };
        let rows = Some(tokens.checked_sub(first)?.min(self.len(0)));
        let positions = self.positions.clone();
        let (store, promise) = (Arc::clone(&self.store), Arc::clone(&self.promise));
        Some(Self { store, promise, seen: tokens, rows, positions, ..*self })
    }

    /// Tokens that all heads hold together.
    pub fn total_tokens(&self) -> usize {
        (0..self.layout.heads()).map(|head| self.len(head)).sum()
    }

    /// Position in the sequence of a row of a KV head.
    pub fn position(&self, head: usize, row: usize) -> u32 {
        match &self.positions {
            Positions::From(first) => (first + row) as u32,
            Positions::Listed(positions) => positions[head][row],
        }
    }

    /// How many of some rows of a head are of tokens before a position.
    fn before(&self, head: usize, rows: &Range<usize>, position: usize) -> usize {
        match &self.positions {
            Positions::From(first) => position.saturating_sub(*first).clamp(rows.start, rows.end) - rows.start,
            Positions::Listed(positions) => before(&positions[head][rows.clone()], position),
        }
    }

    /// What a KV head holds, in f32; keys carry RoPE at their positions.
    pub fn read(&self, head: usize) -> Result<Pairs, ModelError> {
        let mut pairs = self.store.read(head)?;
        let numbers = self.len(head) * self.layout.head_dim;
        pairs.keys.truncate(numbers);
        pairs.values.truncate(numbers);
        pairs.biases.truncate(self.len(head));
        Ok(pairs)
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> usize {
        self.store.allocated_bytes()
    }

    /// Keeps a ledger's promise for its memory until that is let go. Only the first is kept; another goes back at once.
    pub fn hold(&self, promise: Promise) {
        drop(self.promise.set(promise));
    }

    /// Tells segments apart that do not share their memory.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.promise).addr()
    }

    pub(crate) fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    /// Every row of every head.
    pub(super) fn whole(&self) -> Vec<Range<usize>> {
        (0..self.layout.heads()).map(|head| 0..self.len(head)).collect()
    }
}

/// Some consecutive rows of each head of a segment.
#[derive(Clone, Debug)]
pub(crate) struct Slice {
    pub segment: Arc<Segment>,
    /// Of each head.
    pub rows: Vec<Range<usize>>,
    /// Position of the token that follows.
    pub end: usize,
}

impl Slice {
    pub(super) fn whole(segment: Arc<Segment>) -> Self {
        Self { rows: segment.whole(), end: segment.seen, segment }
    }

    /// What of it stands before a position, in the same memory: none where something before it was dropped.
    pub(super) fn prefix(&self, position: usize) -> Option<Self> {
        let is_whole = self.end <= position || matches!(self.segment.positions, Positions::From(_));
        is_whole.then(|| self.kept_before(position))
    }

    /// What is left of it before a position, in the same memory.
    pub(super) fn kept_before(&self, position: usize) -> Self {
        let of_head = |(head, rows): (usize, &Range<usize>)| rows.start..rows.start + self.before(head, position);
        let rows = self.rows.iter().enumerate().map(of_head).collect();
        Self { segment: Arc::clone(&self.segment), rows, end: self.end.min(position) }
    }

    /// Positions of its rows of a head, ascending.
    pub(super) fn positions(&self, head: usize) -> impl Iterator<Item = u32> {
        self.rows[head].clone().map(move |row| self.segment.position(head, row))
    }

    /// How many of them are before a position.
    pub(super) fn before(&self, head: usize, position: usize) -> usize {
        self.segment.before(head, &self.rows[head], position)
    }
}

/// How many of some positions, ascending, are before another.
pub(super) fn before(positions: &[u32], position: usize) -> usize {
    positions.partition_point(|&at| (at as usize) < position)
}
