//! What is kept of what was read: prefixes of later prompts, and documents.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cokv_models::cache::{RaggedCache, Segment};

use crate::handle::EntryState;
use crate::job::Namespace;
use crate::told::{Document, MadeBy};

/// What is said of a document beside its tokens.
#[derive(Clone, Debug)]
pub struct DocumentFacts {
    pub name: String,
    pub text: Arc<String>,
    pub pinned: bool,
    pub time_to_live: Option<Duration>,
}

/// Tokens that were read, and what is kept of them.
#[derive(Debug)]
pub struct Entry {
    pub namespace: Namespace,
    pub shared: bool,
    pub tokens: Arc<Vec<u32>>,
    /// Frozen.
    pub cache: RaggedCache,
    /// What chose, where not all is kept of its beginning.
    pub made_by: Option<MadeBy>,
    /// The token from which on all is kept, where its beginning was compressed for want of memory: it serves every job that does not want to
    /// be exact.
    pub at_rest: Option<usize>,
    /// Tokens at its end that the last job added.
    pub last_turn: usize,
    pub document: Option<DocumentFacts>,
    pub hits: u64,
    pub used: Instant,
}

/// Entries in the order in which they came.
#[derive(Debug, Default)]
pub struct Entries(Vec<Entry>);

/// Where a prompt goes on.
#[derive(Debug)]
pub struct Found {
    /// Frozen.
    pub cache: RaggedCache,
    /// Tokens that it has seen.
    pub tokens: usize,
    /// Of the entry, as long as nothing is kept or let go.
    place: Option<usize>,
}

/// Where a job goes on.
#[derive(Debug)]
pub struct Beginning {
    pub found: Found,
    /// The compressed memory that it begins with, and what made that.
    pub base: Option<(usize, MadeBy)>,
    /// As of [`Entry`].
    pub at_rest: Option<usize>,
}

impl Found {
    /// Nothing: a cache that has seen nothing.
    pub fn nothing(cache: RaggedCache) -> Self {
        Self { cache, tokens: 0, place: None }
    }

    /// The same once more.
    pub fn again(&self) -> Option<Self> {
        Some(Self { cache: self.cache.prefix(self.tokens)?, ..*self })
    }
}

impl Entry {
    /// Its first tokens, for a prompt that begins with them; none where something before them was left out.
    pub fn beginning(&self, tokens: usize) -> Option<Found> {
        Some(Found { cache: self.cache.prefix(tokens)?, tokens, place: None })
    }

    /// Who may use it.
    fn serves(&self, namespace: &Namespace) -> bool {
        self.shared || self.namespace == *namespace
    }

    /// The memory of a compressed beginning; none where all is kept.
    pub fn base(&self) -> Option<usize> {
        self.made_by.as_ref().and(self.cache.segments().next()).map(|segment| segment.identity())
    }

    fn is_pinned(&self) -> bool {
        self.document.as_ref().is_some_and(|document| document.pinned)
    }

    fn is_expired(&self, now: Instant) -> bool {
        let lives = self.document.as_ref().and_then(|document| document.time_to_live);
        lives.is_some_and(|lives| now.duration_since(self.used) > lives)
    }

    /// As it is told to others; none where it is no document.
    pub fn document(&self) -> Option<Document> {
        let DocumentFacts { name, text, pinned, time_to_live } = self.document.clone()?;
        let cache = Arc::clone(self.cache.segments().next()?);
        let (shared, hits) = (self.shared, self.hits);
        let (tokens, made_by) = (Arc::clone(&self.tokens), self.made_by.clone());
        Some(Document { name, shared, tokens, text, made_by, pinned, time_to_live, hits, cache })
    }
}

impl Entries {
    /// Bytes of the segments that some entries hold, each counted once.
    fn bytes_of<'a>(entries: impl Iterator<Item = &'a Entry>) -> u64 {
        bytes_of(entries.flat_map(|entry| entry.cache.segments()))
    }

    /// Bytes of documents that stay whatever else wants memory.
    pub fn pinned_bytes(&self) -> u64 {
        Self::bytes_of(self.0.iter().filter(|entry| entry.is_pinned()))
    }

    /// Bytes of documents, and of the other entries; what both hold is the documents'.
    pub fn bytes(&self) -> (u64, u64) {
        let documents = Self::bytes_of(self.0.iter().filter(|entry| entry.document.is_some()));
        (documents, Self::bytes_of(self.0.iter()) - documents)
    }

    /// How many are documents.
    pub fn documents(&self) -> usize {
        self.0.iter().filter(|entry| entry.document.is_some()).count()
    }

    /// All segments, some of them more than once.
    pub fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.0.iter().flat_map(|entry| entry.cache.segments())
    }

    /// The longest beginning of a prompt that a namespace may use, where it is at least so long: of what is kept whole, or of what
    /// begins with this compressed segment. One token is always left to be read.
    pub fn longest(&self, namespace: &Namespace, tokens: &[u32], base: Option<usize>, least: usize) -> Option<Found> {
        let found = self.common_with(namespace, tokens, least, |entry| entry.base() == base);
        found.into_iter().find_map(|(tokens, place)| {
            let cache = self.0[place].cache.prefix(tokens)?;
            Some(Found { cache, tokens, place: Some(place) })
        })
    }

    /// The same of what was compressed for want of memory.
    pub fn longest_at_rest(&self, namespace: &Namespace, tokens: &[u32], least: usize) -> Option<Beginning> {
        let found = self.common_with(namespace, tokens, least, |entry| entry.at_rest.is_some());
        found.into_iter().find_map(|(tokens, place)| {
            let entry = &self.0[place];
            let last_tokens_are_there = entry.at_rest.is_some_and(|whole_from| tokens >= whole_from);
            let rest = || last_tokens_are_there.then(|| entry.cache.kept_prefix(tokens)).flatten();
            let found = Found { cache: entry.cache.prefix(tokens).or_else(rest)?, tokens, place: Some(place) };
            let base = entry.base().zip(entry.made_by.clone());
            Some(Beginning { found, base, at_rest: entry.at_rest })
        })
    }

    /// How many of its first tokens a prompt has in common with entries that a namespace may use, where these are so many at least, and the
    /// entries' places: the longest first. One token is always left to be read.
    fn common_with(
        &self,
        namespace: &Namespace,
        tokens: &[u32],
        least: usize,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> Vec<(usize, usize)> {
        let most = tokens.len().saturating_sub(1);
        let of_entry = |(place, entry): (usize, &Entry)| {
            let usable = entry.serves(namespace) && is_meant(entry);
            let common = if usable { common(&entry.tokens, tokens).min(most) } else { 0 };
            (common >= least.max(1)).then_some((common, place))
        };
        let mut found: Vec<(usize, usize)> = self.0.iter().enumerate().filter_map(of_entry).collect();
        found.sort_unstable_by(|one, other| other.cmp(one));
        found
    }

    /// What was found is used.
    pub fn touch(&mut self, found: &Found, now: Instant) {
        let first = |cache: &RaggedCache| cache.segments().next().map(|segment| segment.identity());
        let memory = first(&found.cache);
        for (place, entry) in self.0.iter_mut().enumerate() {
            // A document that is named was not looked for.
            let is_all = entry.tokens.len() == found.tokens && memory.is_some() && first(&entry.cache) == memory;
            if is_all || found.place == Some(place) {
                (entry.used, entry.hits) = (now, entry.hits + 1);
            }
        }
    }

    /// Something that begins with a compressed beginning of just these tokens, made just so.
    pub fn compressed(&self, namespace: &Namespace, tokens: &[u32], made_by: &MadeBy) -> Option<&Entry> {
        self.0.iter().find(|entry| {
            let begins = entry.cache.segments().next().is_some_and(|segment| segment.seen() == tokens.len());
            let made_so = begins && entry.made_by.as_ref() == Some(made_by);
            made_so && entry.serves(namespace) && entry.tokens.starts_with(tokens)
        })
    }

    /// A document, by its name.
    pub fn named(&self, namespace: &Namespace, name: &str) -> Option<&Entry> {
        let named = |entry: &&Entry| entry.document.as_ref().is_some_and(|document| document.name == name);
        let mut all = self.0.iter().filter(named).filter(|entry| entry.serves(namespace));
        let first = all.next()?;
        // One's own goes before what others share.
        Some(if first.namespace == *namespace {
            first
        } else {
            all.find(|entry| entry.namespace == *namespace).unwrap_or(first)
        })
    }

    /// All documents that a namespace may use.
    pub fn of(&self, namespace: &Namespace) -> impl Iterator<Item = Document> {
        self.0.iter().filter(|entry| entry.serves(namespace)).filter_map(Entry::document)
    }

    /// Takes a document of a namespace's own out.
    pub fn forget(&mut self, namespace: &Namespace, name: &str) -> Option<Document> {
        let is_it = |entry: &Entry| {
            entry.namespace == *namespace && entry.document.as_ref().is_some_and(|document| document.name == name)
        };
        let place = self.0.iter().position(is_it)?;
        self.0.remove(place).document()
    }

    /// Keeps an entry. Others that are its beginnings are not needed beside it, documents apart; nor is it beside one that begins
    /// with it.
    pub fn insert(&mut self, new: Entry) {
        if new.document.is_none() {
            let longer = |old: &Entry| {
                old.serves(&new.namespace) && old.base() == new.base() && old.tokens.starts_with(&new.tokens)
            };
            if self.0.iter().any(longer) {
                return;
            }
        }
        self.0.retain(|old| {
            let within =
                old.namespace == new.namespace && old.base() == new.base() && new.tokens.starts_with(&old.tokens);
            old.document.is_some() || !within
        });
        self.0.push(new);
    }

    /// Whether letting go of all that may be let go would free so many bytes.
    pub fn could_free(&self, bytes: u64) -> bool {
        let held = held_by(self.0.iter().filter(|entry| !entry.is_pinned()));
        // What somebody else reads stays with them.
        let ours = held.values().filter(|(count, segment)| Arc::strong_count(segment) <= *count);
        ours.map(|(_, segment)| segment.bytes() as u64).sum::<u64>() >= bytes
    }

    /// Lets go of what has outlived its time.
    pub fn expire(&mut self, now: Instant) {
        self.0.retain(|entry| !entry.is_expired(now));
    }

    /// Of the prefixes of which all is kept and that nobody reads, the one that was used longest ago: `is_meant` says of which something can
    /// be left out.
    pub fn oldest_idle(&self, is_meant: impl Fn(&Entry) -> bool) -> Option<usize> {
        let held = held_by(self.0.iter());
        let is_ours = |segment: &Arc<Segment>| {
            held.get(&segment.identity()).is_some_and(|(count, _)| Arc::strong_count(segment) <= *count)
        };
        let is_whole = |entry: &Entry| entry.made_by.is_none() && entry.document.is_none();
        // What many begin with is always read by somebody; whoever goes on with a conversation reads all of it.
        let is_idle =
            |entry: &Entry| is_whole(entry) && is_meant(entry) && entry.cache.segments().last().is_some_and(is_ours);
        let idle = self.0.iter().enumerate().filter(|(_, entry)| is_idle(entry));
        idle.min_by_key(|(_, entry)| entry.used).map(|(place, _)| place)
    }

    /// The entry at a place.
    pub fn at(&self, place: usize) -> &Entry {
        &self.0[place]
    }

    /// What is left of the entry at a place, and from which token on that is all.
    pub fn compress(&mut self, place: usize, cache: RaggedCache, made_by: MadeBy, whole_from: usize) {
        let entry = &mut self.0[place];
        (entry.cache, entry.made_by, entry.at_rest) = (cache, Some(made_by), Some(whole_from));
    }

    /// Lets go of one that is not pinned: of those that nobody used again the oldest, then of the others. False where there is none.
    pub fn drop_one(&mut self) -> bool {
        let droppable = self.0.iter().enumerate().filter(|(_, entry)| !entry.is_pinned());
        let oldest = droppable.min_by_key(|(_, entry)| (entry.hits > 0, entry.used)).map(|(place, _)| place);
        oldest.map(|place| self.0.remove(place)).is_some()
    }

    /// What is told of those that a namespace may use.
    pub fn states(&self, namespace: &Namespace, now: Instant) -> Vec<EntryState> {
        let state = |entry: &Entry| {
            let layout = entry.cache.layout();
            let kept_by_head: Vec<usize> = (0..layout.heads())
                .map(|head| entry.cache.len(head / layout.kv_heads, head % layout.kv_heads))
                .collect();
            EntryState {
                document: entry.document.as_ref().map(|document| document.name.clone()),
                tokens: entry.tokens.len(),
                kept_tokens: entry.cache.total_tokens() as f64 / layout.heads() as f64,
                bytes: entry.cache.bytes(),
                pinned: entry.is_pinned(),
                compressed: entry.made_by.is_some(),
                hits: entry.hits,
                idle_seconds: now.duration_since(entry.used).as_secs_f64(),
                kept_by_head,
            }
        };
        self.0.iter().filter(|entry| entry.serves(namespace)).map(state).collect()
    }
}

/// Segments that some entries hold, by their memory, with how many of the entries hold each.
fn held_by<'a>(entries: impl Iterator<Item = &'a Entry>) -> HashMap<usize, (usize, &'a Arc<Segment>)> {
    let mut held: HashMap<usize, (usize, &Arc<Segment>)> = HashMap::new();
    for segment in entries.flat_map(|entry| entry.cache.segments()) {
        held.entry(segment.identity()).or_insert((0, segment)).0 += 1;
    }
    held
}

/// Bytes of segments, of which those that share their memory count once.
pub fn bytes_of<'a>(segments: impl Iterator<Item = &'a Arc<Segment>>) -> u64 {
    let by_identity: HashMap<usize, usize> = segments.map(|segment| (segment.identity(), segment.bytes())).collect();
    by_identity.values().map(|&bytes| bytes as u64).sum()
}

/// Tokens that two texts have in common at their beginning.
pub fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
