//! What becomes of what runs.

use std::sync::Arc;
use std::time::Instant;

use cokv_models::ModelError;
use cokv_models::batch::{Event, SequenceId, Why};
use cokv_models::cache::{RaggedCache, SLICES};
use cokv_models::ledger::Promise;

use super::Scheduler;
use super::running::Running;
use crate::entries::Entry;
use crate::job::Compression;
use crate::refusal::Refusal;
use crate::told::Told;

impl Scheduler {
    /// Passes on what happened to a sequence.
    pub(super) fn hear(&mut self, id: SequenceId, event: Event, now: Instant) {
        let Some(place) = self.running.iter().position(|running| running.choice(id).is_some()) else { return };
        let running = &mut self.running[place];
        let choice = running.choice(id).unwrap_or_default();
        match event {
            Event::Prefilled { tokens, .. } => {
                running.read = tokens;
                let done = running.used.cached_tokens + tokens;
                (running.job.hear)(Told::Read { tokens: done, of: running.job.tokens.len() });
                running.reading = done < running.job.tokens.len();
            }
            Event::Compressed { tokens, bytes, .. } => {
                let cache = &mut running.used.cache;
                cache.compressed = true;
                cache.kept_share =
                    tokens as f64 / (running.job.tokens.len() * self.model.config().layout.heads()) as f64;
                cache.bytes = bytes;
                if let Compression::Question { method, .. } = &running.job.compression {
                    cache.method = Some(method.name().into());
                }
            }
            Event::Read { cache } => self.keep_prompt(place, cache, now),
            Event::Token { token, logprobs } => {
                self.figures.generated_tokens.add(1);
                running.first_token.get_or_insert(now);
                if running.open[choice] {
                    (running.job.hear)(Told::Token { choice, token, logprobs });
                }
            }
            Event::Evicted { .. } => {}
            Event::Ended { why, answer, cache, promise, .. } => {
                if choice == 0 {
                    self.keep_answer(place, &answer, cache, promise, now);
                }
                self.end(place, choice, why, now);
            }
            Event::Failed(error) => {
                let mut running = self.running.remove(place);
                self.abandon(&running, now);
                (running.job.hear)(Told::Refused(refusal(error)));
            }
        }
    }

    /// An answer is over; with the last one the job is.
    fn end(&mut self, place: usize, choice: usize, why: Why, now: Instant) {
        let running = &mut self.running[place];
        running.open[choice] = false;
        (running.job.hear)(Told::Ended { choice, why });
        if running.is_over() {
            self.running.remove(place).tell_done(now);
        }
    }

    /// Ends answers that have said enough.
    pub(super) fn end_what_has_said_enough(&mut self, place: usize, now: Instant) {
        let running = &self.running[place];
        if running.reading {
            return;
        }
        let enough = |&choice: &usize| running.open[choice] && running.flags.has_enough(choice);
        let ended: Vec<usize> = (0..running.open.len()).filter(enough).collect();
        // The last to be told takes the job with it.
        for choice in ended {
            let id = self.running[place].id(choice);
            drop(self.batch.cancel(id));
            self.end(place, choice, Why::Stop, now);
        }
    }

    /// Takes a job's sequences out of the batch, and keeps what it has read.
    pub(super) fn abandon(&mut self, running: &Running, now: Instant) {
        let reading = running.reading;
        for id in running.ids().collect::<Vec<_>>() {
            let Some((cache, promise)) = self.batch.cancel(id) else { continue };
            let seen = cache.next_position();
            if reading && seen >= self.settings.least_partial && running.keeps() {
                self.keep(running, running.prompt(seen).to_vec(), cache, promise, now);
            }
        }
    }

    /// A prompt was read.
    fn keep_prompt(&mut self, place: usize, cache: RaggedCache, now: Instant) {
        let running = &mut self.running[place];
        running.reading = false;
        let seen = cache.next_position();
        if !running.keeps() {
            return;
        }
        running.used.written_tokens = seen - running.used.cached_tokens;
        let entry = entry(running, running.prompt(seen).to_vec(), cache, now);
        self.insert(entry);
    }

    /// An answer was written.
    fn keep_answer(&mut self, place: usize, answer: &[u32], cache: RaggedCache, promise: Promise, now: Instant) {
        let running = &self.running[place];
        let seen = cache.next_position();
        if !running.keeps() || seen > running.job.tokens.len() + answer.len() {
            return;
        }
        let tokens: Vec<u32> = running.job.tokens.iter().chain(answer).copied().take(seen).collect();
        let running = self.running.remove(place);
        self.keep(&running, tokens, cache, promise, now);
        self.running.insert(place, running);
    }

    /// Keeps a cache whose rows of its own are not frozen yet, where there is memory for the copy that freezing takes.
    fn keep(&mut self, running: &Running, tokens: Vec<u32>, mut cache: RaggedCache, promise: Promise, now: Instant) {
        let token_bytes = cache.format().token_bytes(cache.layout().head_dim);
        let copied = cache.total_tokens() - cache.tokens_that_stay_frozen();
        let bytes = (copied * token_bytes) as u64;
        if !self.make_room(bytes) {
            return;
        }
        let Some(mut room) = self.ledger.promise(bytes) else { return };
        // What follows two segments is copied behind the second in any case.
        let settled = if cache.segments().count() < SLICES { cache.settle() } else { Ok(()) };
        if settled.and_then(|()| cache.freeze()).is_err() {
            return;
        }
        drop(promise);
        if let Some(segment) = cache.segments().last() {
            room.hold((segment.bytes() as u64).min(bytes));
            segment.hold(room);
        }
        let entry = entry(running, tokens, cache, now);
        self.insert(entry);
    }

    fn insert(&mut self, entry: Entry) {
        let half = self.settings.cache_memory.map_or(usize::MAX, |bytes| (bytes / 2) as usize);
        if entry.cache.bytes() <= half {
            self.entries.insert(entry);
        }
    }
}

fn entry(running: &Running, tokens: Vec<u32>, cache: RaggedCache, now: Instant) -> Entry {
    let last_turn = tokens.len() - running.used.cached_tokens.min(tokens.len());
    Entry {
        namespace: running.job.namespace.clone(),
        shared: false,
        tokens: Arc::new(tokens),
        cache,
        made_by: running.made_by.clone(),
        at_rest: running.at_rest,
        last_turn,
        document: None,
        hits: 0,
        used: now,
    }
}

/// As others are told.
pub(super) fn refusal(error: ModelError) -> Refusal {
    match error {
        ModelError::NotFinite { place } => Refusal::NotFinite(place),
        ModelError::Constraint(error) => error.into(),
        error @ (ModelError::Policy(_) | ModelError::NoRoomToReplay { .. }) => Refusal::Method(error.to_string()),
        other => Refusal::Internal(other.to_string()),
    }
}
