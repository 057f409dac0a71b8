//! Where a head's keys and values lie: in the shared prompt, then in rows of its own.

use std::ops::Range;

use crate::cache::{Elements, HeadRows, HeadView};

impl<'a> HeadView<'a> {
    /// Where keys or values of a range of the head's tokens lie: the first of them in the shared prompt, the others in the
    /// head's own rows. Ranges are of elements and are not empty.
    pub(super) fn segments(
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
    pub(super) fn load<'s>(
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
