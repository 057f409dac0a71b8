//! Where the keys and values of a cache lie: in slices of frozen segments, then in rows of its own.

use std::ops::Range;

use crate::kernel::rows::{Elements, HeadRows};

/// Frozen segments that a cache begins with, at most.
pub const SLICES: usize = 2;

/// The KV heads of a cache, in flat order.
#[derive(Clone, Copy)]
pub struct CacheView<'a> {
    /// KV heads of a layer.
    pub kv_heads: usize,
    /// What it shares, in the order of its tokens.
    pub slices: [Option<SliceView<'a>>; SLICES],
    /// What follows in each head.
    pub own: &'a [HeadRows],
}

/// A part of a frozen segment: some consecutive rows of each KV head.
#[derive(Clone, Copy)]
pub struct SliceView<'a> {
    /// The whole segment's heads.
    pub heads: &'a [HeadRows],
    /// Of each head.
    pub rows: &'a [Range<usize>],
}

impl<'a> CacheView<'a> {
    /// One KV head.
    pub fn head(&self, layer: usize, kv_head: usize) -> HeadView<'a> {
        let flat = layer * self.kv_heads + kv_head;
        let slice = |slice: SliceView<'a>| HeadSlice {
            rows: &slice.heads[flat],
            start: slice.rows[flat].start,
            len: slice.rows[flat].len(),
        };
        HeadView { slices: self.slices.map(|of_all| of_all.map(slice)), own: &self.own[flat] }
    }
}

/// One KV head of a cache: rows of segments, then rows of its own.
#[derive(Clone, Copy)]
pub struct HeadView<'a> {
    slices: [Option<HeadSlice<'a>>; SLICES],
    own: &'a HeadRows,
}

/// Consecutive rows of a frozen head.
#[derive(Clone, Copy)]
pub(super) struct HeadSlice<'a> {
    /// The whole head.
    pub rows: &'a HeadRows,
    /// The first row.
    pub start: usize,
    /// How many.
    pub len: usize,
}

impl<'a> HeadView<'a> {
    /// Tokens that the head holds.
    pub fn tokens(&self) -> usize {
        self.slices.iter().flatten().map(|slice| slice.len).sum::<usize>() + self.own.len()
    }

    /// The slice that the head begins with.
    pub(super) fn first_slice(&self) -> Option<HeadSlice<'a>> {
        self.slices.iter().flatten().find(|slice| slice.len > 0).copied()
    }

    /// Where keys or values of a range of the head's tokens lie, in their order. Ranges are of elements and are not empty.
    pub(super) fn segments(
        &self,
        part: impl Fn(&'a HeadRows) -> &'a Elements,
        range: Range<usize>,
        head_dim: usize,
    ) -> impl Iterator<Item = (&'a Elements, Range<usize>)> {
        let own = HeadSlice { rows: self.own, start: 0, len: self.own.len() };
        let mut before = 0;
        self.slices.into_iter().flatten().chain([own]).filter_map(move |HeadSlice { rows, start, len }| {
            let first = range.start.clamp(before, before + len) - before;
            let last = range.end.clamp(before, before + len) - before;
            before += len;
            let elements = (start + first) * head_dim..(start + last) * head_dim;
            (!elements.is_empty()).then(|| (part(rows), elements))
        })
    }

    /// Adds the biases of a range of the head's tokens to their logits, `[queries, range]`.
    pub(crate) fn add_biases(&self, range: Range<usize>, logits: &mut [f32]) {
        let own = HeadSlice { rows: self.own, start: 0, len: self.own.len() };
        let mut before = 0;
        for HeadSlice { rows, start, len } in self.slices.into_iter().flatten().chain([own]) {
            let [first, last] = [range.start, range.end].map(|at| at.clamp(before, before + len) - before);
            if let Some(biases) = rows.biases().map(|biases| &biases[start + first..start + last]) {
                let at = before + first - range.start.min(before + first);
                for row in logits.chunks_exact_mut(range.len()) {
                    row[at..at + biases.len()].iter_mut().zip(biases).for_each(|(logit, bias)| *logit += bias);
                }
            }
            before += len;
        }
    }

    /// Keys or values of a range of the head's tokens as f32, in place where they are stored so and in one piece.
    pub(crate) fn load<'s>(
        &self,
        part: impl Fn(&'a HeadRows) -> &'a Elements,
        range: Range<usize>,
        head_dim: usize,
        scratch: &'s mut Vec<f32>,
    ) -> &'s [f32]
    where
        'a: 's,
    {
        let mut segments = self.segments(part, range.clone(), head_dim).peekable();
        let first = segments.next();
        if let (Some((elements, range)), None) = (&first, segments.peek())
            && let Some(whole) = elements.as_f32()
        {
            return &whole[range.clone()];
        }
        scratch.resize(range.len() * head_dim, 0.0);
        let mut done = 0;
        for (elements, range) in first.into_iter().chain(segments) {
            let out = &mut scratch[done..done + range.len()];
            done += range.len();
            elements.widen(range, out);
        }
        scratch
    }
}
