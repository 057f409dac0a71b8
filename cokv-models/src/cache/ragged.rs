//! Caches in which every KV head has its own length.

use std::ops::Range;
use std::sync::Arc;

use cokv_core::{Coalition, Format, HeadLayout, HeadSelection, Pairs, Selection};

use super::places::Places;
use super::segment::{Positions, SLICES, Segment, Slice};
use super::store::Store;
use crate::error::ModelError;

/// A KV cache of one sequence. Each KV head holds slices of at most two frozen segments (of each all, the last tokens, or
/// nothing) followed by rows of its own: kept prompt tokens after compression, then every token since.
///
/// The next position is the number of tokens seen, not the number kept: keys keep the RoPE of their original positions.
#[derive(Debug)]
pub struct RaggedCache {
    layout: HeadLayout,
    format: Format,
    slices: Vec<Slice>,
    own: Box<dyn Store>,
    /// Positions of each head's first own rows, where tokens before them were dropped; those that follow are the last seen.
    /// None of any head where nothing was dropped. Bookkeeping, which bytes do not count.
    kept: Arc<Vec<Vec<u32>>>,
    next_position: usize,
}

impl RaggedCache {
    /// A cache that has seen nothing, on an empty store.
    pub(crate) fn new(layout: HeadLayout, format: Format, own: Box<dyn Store>) -> Self {
        Self { layout, format, slices: Vec::new(), own, kept: Arc::default(), next_position: 0 }
    }

    /// What a selection keeps of a segment's rows. Heads that keep everything share the segment's memory; all others copy
    /// their tokens into buffers of exactly that size. When no head shares it, the segment's memory is free to go.
    ///
    /// # Errors
    /// Where the backend has no memory for the copies.
    pub fn compressed(segment: &Arc<Segment>, selection: &Selection) -> Result<Self, ModelError> {
        Self::kept_of(segment, selection, None)
    }

    /// The same where heads that do not keep everything hold other pairs than the segment's, as many as they keep tokens.
    ///
    /// # Errors
    /// Where the backend has no memory for them, or none for biases.
    pub fn rewritten(segment: &Arc<Segment>, selection: &Selection, pairs: &[Pairs]) -> Result<Self, ModelError> {
        Self::kept_of(segment, selection, Some(pairs))
    }

    fn kept_of(segment: &Arc<Segment>, selection: &Selection, pairs: Option<&[Pairs]>) -> Result<Self, ModelError> {
        let rows: Vec<&[u32]> = selection.heads.iter().map(copied).collect();
        let positions_of = |(head, rows): (usize, &&[u32])| -> Vec<u32> {
            rows.iter().map(|&row| segment.position(head, row as usize)).collect()
        };
        let kept = rows.iter().enumerate().map(positions_of).collect();
        let shared = selection.heads.iter().enumerate().map(|(head, kept)| match kept {
            HeadSelection::Everything => 0..segment.len(head),
            HeadSelection::Tokens(_) => 0..0,
        });
        let slice = Slice { rows: shared.collect(), ..Slice::whole(Arc::clone(segment)) };
        let shares = slice.rows.iter().any(|rows| !rows.is_empty());
        let own = match pairs {
            _ if rows.iter().all(|rows| rows.is_empty()) => segment.store().empty(),
            Some(pairs) => segment.store().of_pairs(pairs)?,
            None => segment.store().gather(&rows)?,
        };
        let slices = if shares { vec![slice] } else { Vec::new() };
        Ok(Self { slices, own, kept: Arc::new(kept), ..Self::after(segment) })
    }

    /// All of a segment in every head.
    pub fn full(segment: &Arc<Segment>) -> Self {
        Self { slices: vec![Slice::whole(Arc::clone(segment))], ..Self::after(segment) }
    }

    /// What was kept of a text in another process, frozen: of every KV head pairs and their positions, ascending and below `seen`,
    /// the number of tokens that the text has. It lies in the same kind of memory as this cache, in the same format.
    ///
    /// # Errors
    /// Where the backend has no memory for it, or none for biases.
    pub(super) fn restored(&self, seen: usize, positions: Vec<Vec<u32>>, pairs: &[Pairs]) -> Result<Self, ModelError> {
        let (own, positions) = (self.own.of_pairs(pairs)?, Positions::Listed(positions));
        Ok(Self::full(&Arc::new(Segment::new(self.layout, self.format, seen, positions, own))))
    }

    /// What a coalition sees of a segment: its members all of it, every other head the last `window` tokens. Nothing is
    /// copied.
    pub fn masked(segment: &Arc<Segment>, coalition: &Coalition, window: usize) -> Self {
        let start = |head, len: usize| if coalition.contains(head) { 0 } else { len.saturating_sub(window) };
        let rows = segment.whole().into_iter().enumerate().map(|(head, rows)| start(head, rows.end)..rows.end);
        let slice = Slice { rows: rows.collect(), ..Slice::whole(Arc::clone(segment)) };
        Self { slices: vec![slice], ..Self::after(segment) }
    }

    /// Nothing of a segment, but its position.
    fn after(segment: &Segment) -> Self {
        let own = segment.store().empty();
        Self { next_position: segment.seen(), ..Self::new(segment.layout(), segment.format(), own) }
    }

    /// What a KV head holds, counted flat, in f32: pairs without a bias have one of 0 where others have one.
    ///
    /// # Errors
    /// Of the backend.
    pub fn read(&self, head: usize) -> Result<Pairs, ModelError> {
        let mut all = Pairs::default();
        let dim = self.layout.head_dim;
        let own = 0..self.own.rows(head);
        let slices = self.slices.iter().map(|slice| (slice.segment.store(), slice.rows[head].clone()));
        for (store, rows) in slices.chain([(self.own.as_ref(), own)]).filter(|(_, rows)| !rows.is_empty()) {
            let Pairs { keys, values, biases } = store.read(head)?;
            let before = all.keys.len() / dim;
            all.keys.extend_from_slice(&keys[rows.start * dim..rows.end * dim]);
            all.values.extend_from_slice(&values[rows.start * dim..rows.end * dim]);
            if !biases.is_empty() || !all.biases.is_empty() {
                all.biases.resize(before, 0.0);
                all.biases.extend(biases.get(rows.clone()).unwrap_or_default());
                all.biases.resize(before + rows.len(), 0.0);
            }
        }
        Ok(all)
    }

    /// Drops all but some of the tokens that each head holds, which are counted in the order of its rows. What is kept is copied into
    /// buffers of exactly its size, apart from all segments.
    ///
    /// # Errors
    /// Where the backend has no memory for the copies; the cache is then as before.
    pub fn keep(&mut self, selection: &Selection) -> Result<(), ModelError> {
        let kept = self.chosen(selection);
        let heads = 0..self.layout.heads();
        let mut before = vec![0; heads.len()];
        let mut store: Option<Box<dyn Store>> = None;
        let whole: Vec<_> = heads.clone().map(|head| 0..self.own.rows(head)).collect();
        let slices = self.slices.iter().map(|slice| (slice.segment.store(), &slice.rows));
        for (from, rows) in slices.chain([(self.own.as_ref(), &whole)]) {
            let of_head = |head: usize| -> Vec<u32> {
                let Range { start, end } = rows[head].clone();
                let ours = before[head]..before[head] + (end - start);
                let ours = kept[head].iter().filter(|&&row| ours.contains(&(row as usize)));
                ours.map(|&row| (row as usize - before[head] + start) as u32).collect()
            };
            let of_heads: Vec<Vec<u32>> = heads.clone().map(of_head).collect();
            before.iter_mut().zip(rows).for_each(|(before, rows)| *before += rows.len());
            let of_heads: Vec<&[u32]> = of_heads.iter().map(Vec::as_slice).collect();
            let gathered = from.gather(&of_heads)?;
            match &mut store {
                None => store = Some(gathered),
                Some(store) => {
                    let all: Vec<_> = heads.clone().map(|head| 0..gathered.rows(head)).collect();
                    store.append(gathered.as_ref(), &all)?;
                }
            }
        }
        self.hold(&kept, store.unwrap_or_else(|| self.own.empty()));
        Ok(())
    }

    /// The same where each head holds other pairs than it did, as many as it keeps tokens.
    ///
    /// # Errors
    /// Where the backend has no memory for them, or none for biases; the cache is then as before.
    pub fn keep_rewritten(&mut self, selection: &Selection, pairs: &[Pairs]) -> Result<(), ModelError> {
        let store = self.own.of_pairs(pairs)?;
        self.hold(&self.chosen(selection), store);
        Ok(())
    }

    /// Rows of each head that a selection keeps.
    fn chosen(&self, selection: &Selection) -> Vec<Vec<u32>> {
        let of_head = |(head, kept): (usize, &HeadSelection)| match kept {
            HeadSelection::Everything => (0..self.tokens(head) as u32).collect(),
            HeadSelection::Tokens(rows) => rows.clone(),
        };
        selection.heads.iter().enumerate().map(of_head).collect()
    }

    /// Holds nothing but a store, whose rows are of tokens that were held before.
    fn hold(&mut self, rows: &[Vec<u32>], store: Box<dyn Store>) {
        let positions_of = |(head, rows): (usize, &Vec<u32>)| -> Vec<u32> {
            let held: Vec<u32> = self.places().positions(head).take(self.tokens(head)).collect();
            rows.iter().map(|&row| held[row as usize]).collect()
        };
        let positions = rows.iter().enumerate().map(positions_of).collect();
        (self.kept, self.own, self.slices) = (Arc::new(positions), store, Vec::new());
    }

    /// Freezes the rows of its own, so that copies of this cache share them. Where it shares two segments already, the second
    /// of them and its own rows are copied into one.
    ///
    /// # Errors
    /// Where the backend has no memory for the copy.
    pub fn freeze(&mut self) -> Result<(), ModelError> {
        let heads = 0..self.layout.heads();
        if heads.clone().all(|head| self.own.rows(head) == 0) {
            return Ok(());
        }
        let empty = self.own.empty();
        let segment = match self.slices.get(SLICES - 1) {
            None => {
                let positions = match self.kept.iter().all(Vec::is_empty) {
                    true => Positions::From(self.next_position - self.own.rows(0)),
                    false => Positions::Listed(heads.map(|head| self.own_positions(head).collect()).collect()),
                };
                let store = std::mem::replace(&mut self.own, empty);
                Segment::new(self.layout, self.format, self.next_position, positions, store)
            }
            Some(last) => {
                let positions = |head| last.positions(head).chain(self.own_positions(head)).collect();
                let positions = Positions::of(heads.clone().map(positions).collect());
                let mut store = self.own.empty();
                store.append(last.segment.store(), &last.rows)?;
                let own: Vec<_> = heads.map(|head| 0..self.own.rows(head)).collect();
                store.append(self.own.as_ref(), &own)?;
                self.slices.truncate(SLICES - 1);
                self.own = empty;
                Segment::new(self.layout, self.format, self.next_position, positions, store)
            }
        };
        self.kept = Arc::default();
        self.slices.push(Slice::whole(Arc::new(segment)));
        Ok(())
    }

    /// The frozen cache as one segment; none where it shares another's memory.
    pub fn into_segment(mut self) -> Result<Option<Arc<Segment>>, ModelError> {
        self.freeze()?;
        let only = self.slices.pop().filter(|slice| self.slices.is_empty() && slice.rows == slice.segment.whole());
        Ok(only.map(|slice| slice.segment))
    }

    /// A cache that goes on from here alone: what is frozen is shared, the rows of its own are copied.
    ///
    /// # Errors
    /// Where the backend has no memory for the copy.
    pub fn fork(&self) -> Result<Self, ModelError> {
        let mut own = self.own.empty();
        let rows: Vec<_> = (0..self.layout.heads()).map(|head| 0..self.own.rows(head)).collect();
        own.append(self.own.as_ref(), &rows)?;
        Ok(Self { slices: self.slices.clone(), own, kept: Arc::clone(&self.kept), ..*self })
    }

    /// What a cache of its first tokens would hold, in the same memory: none where rows of its own are among them, or something
    /// before them was dropped.
    pub fn prefix(&self, tokens: usize) -> Option<Self> {
        self.beginning(tokens, |slice| slice.prefix(tokens))
    }

    /// What is left of its first tokens, in the same memory: none where rows of its own are among them.
    pub fn kept_prefix(&self, tokens: usize) -> Option<Self> {
        self.beginning(tokens, |slice| Some(slice.kept_before(tokens)))
    }

    fn beginning(&self, tokens: usize, of_slice: impl Fn(&Slice) -> Option<Slice>) -> Option<Self> {
        let frozen = self.slices.last().map_or(0, |slice| slice.end);
        if tokens > frozen {
            return None;
        }
        let starts = std::iter::once(0).chain(self.slices.iter().map(|slice| slice.end));
        let before = self.slices.iter().zip(starts).filter(|&(_, start)| start < tokens);
        let slices = before.map(|(slice, _)| of_slice(slice)).collect::<Option<_>>()?;
        Some(Self { slices, next_position: tokens, ..Self::new(self.layout, self.format, self.own.empty()) })
    }

    /// Segments that it shares, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.slices.iter().map(|slice| &slice.segment)
    }

    /// Of the tokens that all heads hold together, those that freezing leaves where they are.
    pub fn tokens_that_stay_frozen(&self) -> usize {
        let stay = self.slices.iter().take(SLICES - 1);
        stay.map(|slice| slice.rows.iter().map(Range::len).sum::<usize>()).sum()
    }

    /// Gives back the room for tokens to come.
    ///
    /// # Errors
    /// Where the backend has no memory for the copy that this takes.
    pub fn settle(&mut self) -> Result<(), ModelError> {
        let heads = self.layout.heads();
        let exact: usize = (0..heads).map(|head| self.own.rows(head)).sum();
        if exact * self.format.token_bytes(self.layout.head_dim) < self.own.allocated_bytes() {
            let rows: Vec<Vec<u32>> = (0..heads).map(|head| (0..self.own.rows(head) as u32).collect()).collect();
            let rows: Vec<&[u32]> = rows.iter().map(Vec::as_slice).collect();
            self.own = self.own.gather(&rows)?;
        }
        Ok(())
    }

    /// The cache itself, leaving one in its place that has seen nothing.
    pub fn take(&mut self) -> Self {
        let nothing = Self::new(self.layout, self.format, self.own.empty());
        std::mem::replace(self, nothing)
    }

    /// How its rows are stored.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Heads of the model.
    pub fn layout(&self) -> HeadLayout {
        self.layout
    }

    /// Tokens that one KV head holds.
    pub fn len(&self, layer: usize, kv_head: usize) -> usize {
        self.tokens(self.layout.flat(layer, kv_head))
    }

    fn tokens(&self, head: usize) -> usize {
        self.shared_tokens(head) + self.own.rows(head)
    }

    fn shared_tokens(&self, head: usize) -> usize {
        self.slices.iter().map(|slice| slice.rows[head].len()).sum()
    }

    /// Tokens that all heads hold together.
    pub fn total_tokens(&self) -> usize {
        (0..self.layout.heads()).map(|head| self.tokens(head)).sum()
    }

    /// Positions in the sequence of the tokens that one KV head holds, in the order of its rows.
    pub fn positions(&self, layer: usize, kv_head: usize) -> Vec<u32> {
        let head = self.layout.flat(layer, kv_head);
        self.places().positions(head).take(self.tokens(head)).collect()
    }

    fn own_positions(&self, head: usize) -> impl Iterator<Item = u32> {
        Places { slices: &[], ..self.places() }.positions(head).take(self.own.rows(head))
    }

    /// Where the tokens stand that it holds, and those to come.
    fn places(&self) -> Places<'_> {
        let since = self.own.rows(0) - self.kept.first().map_or(0, Vec::len);
        Places { slices: &self.slices, kept: &self.kept, since: self.next_position - since }
    }

    /// Position of the next token: the number of tokens seen so far, kept or not.
    pub fn next_position(&self) -> usize {
        self.next_position
    }

    /// Bytes of the keys and values held: of the shared slices and of the head's own rows.
    pub fn bytes(&self) -> usize {
        self.total_tokens() * self.format.token_bytes(self.layout.head_dim)
    }

    /// Bytes that this cache makes the machine hold: its slices of shared segments and its own buffers, room for tokens to
    /// come included.
    pub fn allocated_bytes(&self) -> usize {
        let shared: usize = (0..self.layout.heads()).map(|head| self.shared_tokens(head)).sum();
        shared * self.format.token_bytes(self.layout.head_dim) + self.own_bytes()
    }

    /// Bytes of the buffers that are this cache's alone.
    pub fn own_bytes(&self) -> usize {
        self.own.allocated_bytes()
    }

    /// Makes room for tokens to come, so that appending does not move what is there.
    ///
    /// # Errors
    /// Where the backend has no memory for them.
    pub fn reserve(&mut self, tokens: usize) -> Result<(), ModelError> {
        self.own.reserve(tokens)
    }

    /// Forgets the last `tokens` tokens seen. Only tokens since the last compression or freezing can be forgotten; more than
    /// those is a bug of the caller and panics.
    pub fn rewind(&mut self, tokens: usize) {
        let since = |head: usize| self.own.rows(head) - self.kept.get(head).map_or(0, Vec::len);
        assert!(
            (0..self.layout.heads()).all(|head| tokens <= since(head)),
            "only tokens since the prompt can be forgotten"
        );
        self.own.forget(tokens);
        self.next_position -= tokens;
    }

    /// What a backend reads, and what it appends to.
    pub(crate) fn parts(&mut self) -> (&[Slice], Places<'_>, &mut dyn Store) {
        let Places { since, .. } = self.places();
        let places = Places { slices: &self.slices, kept: &self.kept, since };
        (&self.slices, places, self.own.as_mut())
    }

    /// Counts tokens that all layers have appended.
    pub(crate) fn advance(&mut self, tokens: usize) {
        self.next_position += tokens;
    }
}

impl AsMut<RaggedCache> for RaggedCache {
    fn as_mut(&mut self) -> &mut RaggedCache {
        self
    }
}

/// Rows that a head copies.
fn copied(head: &HeadSelection) -> &[u32] {
    match head {
        HeadSelection::Everything => &[],
        HeadSelection::Tokens(tokens) => tokens,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::host::HostStore;

    fn append(cache: &mut RaggedCache, tokens: usize, first: f32) {
        let layout = cache.layout;
        let numbers: Vec<f32> = (0..tokens * layout.kv_heads * layout.head_dim).map(|i| first + i as f32).collect();
        let store = (cache.own.as_mut() as &mut dyn std::any::Any).downcast_mut::<HostStore>().unwrap();
        (0..layout.layers).for_each(|layer| store.push(layer, &numbers, &numbers));
        cache.advance(tokens);
    }

    fn seen(tokens: usize) -> RaggedCache {
        let layout = HeadLayout::new(2, 4, 2, 3).unwrap();
        let mut cache = RaggedCache::new(layout, Format::F16, Box::new(HostStore::new(layout, Format::F16)));
        cache.reserve(tokens).unwrap();
        append(&mut cache, tokens, 0.0);
        cache
    }

    fn prompt(tokens: usize) -> Arc<Segment> {
        seen(tokens).into_segment().unwrap().unwrap()
    }

    fn tokens(tokens: &[u32]) -> HeadSelection {
        HeadSelection::Tokens(tokens.to_vec())
    }

    fn keys(cache: &RaggedCache, head: usize) -> Vec<f32> {
        let of_slice = |slice: &Slice| {
            let keys = slice.segment.read(head).unwrap().keys;
            keys[slice.rows[head].start * 3..slice.rows[head].end * 3].to_vec()
        };
        let own = cache.own.read(head).unwrap().keys;
        cache.slices.iter().map(of_slice).chain([own]).collect::<Vec<_>>().concat()
    }

    #[test]
    fn bytes_are_the_buffers() {
        let prompt = prompt(10);
        assert_eq!(prompt.bytes(), 4 * 10 * 2 * 3 * 2);
        let full = RaggedCache::full(&prompt);
        assert_eq!((full.bytes(), full.allocated_bytes(), full.own_bytes()), (prompt.bytes(), prompt.bytes(), 0));

        let heads = vec![tokens(&[1, 9]), HeadSelection::Everything, tokens(&[]), tokens(&[0, 3, 4])];
        let ragged = RaggedCache::compressed(&prompt, &Selection { heads }).unwrap();
        assert_eq!([ragged.len(0, 0), ragged.len(0, 1), ragged.len(1, 0), ragged.len(1, 1)], [2, 10, 0, 3]);
        assert_eq!((ragged.bytes(), ragged.allocated_bytes(), ragged.own_bytes()), (15 * 12, 15 * 12, 5 * 12));
        assert_eq!(
            (ragged.next_position(), ragged.positions(0, 0), ragged.positions(1, 1)),
            (10, vec![1, 9], vec![0, 3, 4])
        );
    }

    /// Slices of whole and of compressed segments, kept rows, and rows since.
    #[test]
    fn tokens_before_a_position_are_counted_wherever_they_lie() {
        let heads = || vec![tokens(&[1, 4, 9]), HeadSelection::Everything, tokens(&[]), tokens(&[0, 3])];
        let compressed = RaggedCache::compressed(&prompt(10), &Selection { heads: heads() }).unwrap();
        let mut frozen = compressed.fork().unwrap();
        append(&mut frozen, 3, 1.0);
        frozen.freeze().unwrap();
        let masked = RaggedCache::masked(&prompt(10), &Coalition::from_members(4, [1, 2]), 3);
        for mut cache in [seen(7), RaggedCache::full(&prompt(10)), masked, compressed, frozen] {
            append(&mut cache, 4, 1.0);
            for head in 0..4 {
                let positions = cache.positions(head / 2, head % 2);
                assert!(positions.is_sorted());
                for position in 0..=cache.next_position() {
                    let before = positions.iter().filter(|&&at| (at as usize) < position).count();
                    assert_eq!(cache.places().before(head, position), before, "{positions:?} before {position}");
                }
            }
        }
    }

    #[test]
    fn a_segment_that_no_head_shares_is_let_go() {
        let prompt = prompt(4);
        let heads = vec![tokens(&[3]); 4];
        let small = RaggedCache::compressed(&prompt, &Selection { heads }).unwrap();
        assert_eq!(Arc::strong_count(&prompt), 1);
        drop(prompt);
        assert_eq!(small.bytes(), 4 * 12);
    }

    #[test]
    fn appended_tokens_can_be_rewound() {
        let prompt = prompt(4);
        let mut cache = RaggedCache::full(&prompt);
        cache.reserve(5).unwrap();
        append(&mut cache, 2, 1.0);
        assert_eq!((cache.len(1, 1), cache.next_position()), (6, 6));
        assert_eq!(cache.allocated_bytes(), prompt.bytes() + 4 * 5 * 12);
        cache.rewind(2);
        assert_eq!((cache.len(0, 0), cache.next_position(), cache.bytes()), (4, 4, prompt.bytes()));
    }

    #[test]
    #[should_panic(expected = "only tokens since the prompt can be forgotten")]
    fn kept_tokens_cannot_be_rewound() {
        let mut cache = RaggedCache::compressed(&prompt(4), &Selection { heads: vec![tokens(&[1, 2]); 4] }).unwrap();
        append(&mut cache, 1, 1.0);
        cache.rewind(2);
    }

    #[test]
    fn frozen_caches_share_what_they_have_seen() {
        let prompt = prompt(10);
        let heads = vec![tokens(&[1, 9]), HeadSelection::Everything, tokens(&[]), tokens(&[0, 3, 4])];
        let mut document = RaggedCache::compressed(&prompt, &Selection { heads }).unwrap();
        append(&mut document, 2, 50.0);
        let before: Vec<_> =
            (0..4).map(|head| (keys(&document, head), document.positions(head / 2, head % 2))).collect();
        assert_eq!(before[0].1, [1, 9, 10, 11]);
        document.freeze().unwrap();
        assert_eq!((document.own_bytes(), document.slices.len()), (0, 2));
        let mut question = document.fork().unwrap();
        append(&mut question, 1, 70.0);
        assert_eq!(question.own_bytes(), 4 * 32 * 12, "room for some tokens in each head, and nothing of the document");
        // A third segment is none: what follows the first becomes one.
        question.freeze().unwrap();
        assert_eq!((question.slices.len(), question.next_position()), (2, 13));
        for (head, (keys_before, positions)) in before.into_iter().enumerate() {
            assert_eq!(keys(&document, head), keys_before);
            assert_eq!(document.positions(head / 2, head % 2), positions);
            let (keys, positions_now) = (keys(&question, head), question.positions(head / 2, head % 2));
            assert_eq!(keys[..keys_before.len()], keys_before);
            assert_eq!((keys.len(), positions_now), (keys_before.len() + 3, [positions, vec![12]].concat()));
        }
        // What was dropped once stays dropped, wherever the rows lie now.
        let again = seen(6).into_segment().unwrap().unwrap();
        let once = RaggedCache::compressed(&again, &Selection { heads: vec![tokens(&[1, 3, 5]); 4] }).unwrap();
        let once = once.into_segment().unwrap().unwrap();
        let twice = RaggedCache::compressed(&once, &Selection { heads: vec![tokens(&[0, 2]); 4] }).unwrap();
        assert_eq!((twice.positions(1, 0), twice.next_position()), (vec![1, 5], 6));
    }
}
