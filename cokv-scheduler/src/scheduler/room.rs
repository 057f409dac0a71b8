//! How room is made: idle prefixes are compressed, where the settings say so, and dropped.

use cokv_core::{Budget, Method, Protected};
use cokv_models::cache::{RaggedCache, Segment};
use cokv_models::compress_at_rest;
use cokv_models::ledger::Promise;

use super::Scheduler;
use crate::entries::Entry;
use crate::told::MadeBy;

/// First tokens that stay, which models attend to whatever they say (Xiao et al., arXiv 2309.17453).
const SINKS: usize = 4;
/// Nobody compresses what would keep more than this share of itself.
const WORTH_IT: f64 = 0.9;

impl Scheduler {
    /// Makes room until so many bytes can be promised. False where that cannot be, now; where it never could nothing is touched.
    pub(super) fn make_room(&mut self, bytes: u64) -> bool {
        let mut next = self.next_to_compress();
        // What compressing the next one takes is kept free, because it is there beside what it is made of for a while.
        if self.ledger.could_now(bytes + Next::bytes(&next)) {
            return true;
        }
        let free = self.ledger.limit().map_or(u64::MAX, |limit| limit.saturating_sub(self.ledger.promised()));
        if !self.entries.could_free(bytes.saturating_sub(free)) {
            return false;
        }
        while !self.ledger.could_now(bytes + Next::bytes(&next)) {
            if next.is_some_and(|next| self.compress(next)) {
                // Whoever is being answered waits for one at most.
                if !self.batch.is_empty() {
                    break;
                }
            } else if self.ledger.could_now(bytes) || !self.entries.drop_one() {
                break;
            } else {
                self.figures.dropped_entries.add(1);
            }
            next = self.next_to_compress();
        }
        self.ledger.could_now(bytes)
    }

    /// The idle prefix that is compressed next.
    fn next_to_compress(&self) -> Option<Next> {
        let (method, budget) = self.settings.compress_idle.as_ref()?;
        let place = self.entries.oldest_idle(|entry| kept(entry, method, *budget).is_some())?;
        let entry = self.entries.at(place);
        let kept = kept(entry, method, *budget)?;
        let token_bytes = entry.cache.format().token_bytes(entry.cache.layout().head_dim);
        Some(Next { place, bytes: (kept.total * token_bytes) as u64, kept })
    }

    /// Compresses an idle prefix. False where there is no room for what is left of it.
    fn compress(&mut self, Next { place, bytes, kept: Kept { total, besides } }: Next) -> bool {
        let Some((method, budget)) = &self.settings.compress_idle else { return false };
        let Some(promise) = self.ledger.promise(bytes) else { return false };
        let cache = &self.entries.at(place).cache;
        let Ok(Some(segment)) = compress_at_rest(self.model.engine(), cache, method, total, besides) else {
            return false;
        };
        hold(&segment, promise);
        let (made_by, whole_from) = (MadeBy::of(method, *budget), segment.seen() - besides.window);
        self.entries.compress(place, RaggedCache::full(&segment), made_by, whole_from);
        self.figures.compressed_entries.add(1);
        true
    }
}

/// Gives a segment the promise for its bytes, and back what it does not take.
pub(super) fn hold(segment: &Segment, mut promise: Promise) {
    let bytes = (segment.bytes() as u64).min(promise.bytes());
    promise.hold(bytes);
    promise.lower(bytes);
    segment.hold(promise);
}

/// An idle prefix that can be compressed.
#[derive(Clone, Copy)]
struct Next {
    place: usize,
    /// Of what is left of it.
    bytes: u64,
    kept: Kept,
}

impl Next {
    fn bytes(next: &Option<Self>) -> u64 {
        next.as_ref().map_or(0, |next| next.bytes)
    }
}

/// What is kept of an idle prefix.
#[derive(Clone, Copy)]
struct Kept {
    /// Tokens of all heads together.
    total: usize,
    /// First and last tokens among them: half of what a head keeps on average may be of the last turn.
    besides: Protected,
}

/// None where nearly all would be kept, or less than the method keeps whatever its scores are.
fn kept(entry: &Entry, method: &Method, budget: Budget) -> Option<Kept> {
    let (layout, format, tokens) = (entry.cache.layout(), entry.cache.format(), entry.tokens.len());
    let total = method.allowed(budget, layout, tokens, format);
    let window = entry.last_turn.min(total / layout.heads() / 2);
    let besides = Protected { sinks: SINKS, window };
    let is_less = (total as f64) < WORTH_IT * entry.cache.total_tokens() as f64;
    let fits = method.protected(Default::default()).or(besides).within(total, layout, tokens).is_ok();
    (is_less && fits).then_some(Kept { total, besides })
}
