//! One model, many jobs: who runs next, and what is kept.
//!
//! A scheduler knows no threads and no clock: whoever owns it hands it commands, says what time it is, and lets it take one step
//! after the other.

mod admit;
mod control;
mod documents;
mod hear;
mod room;
mod running;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cokv_models::LanguageModel;
use cokv_models::batch::{Batch, BatchSettings, Event, SequenceId};
use cokv_models::ledger::Ledger;

use self::documents::Making;
use self::running::Running;
use crate::entries::{Entries, bytes_of};
use crate::figures::Figures;
use crate::pace::Pace;
use crate::queue::Queue;
use crate::refusal::Refusal;
use crate::settings::Settings;
use crate::told::Told;

/// One model, many jobs.
pub struct Scheduler {
    model: Arc<LanguageModel>,
    settings: Settings,
    ledger: Ledger,
    batch: Batch,
    queue: Queue,
    running: Vec<Running>,
    /// Documents on their way, the first of which is read.
    making: VecDeque<Making>,
    entries: Entries,
    pace: Pace,
    figures: Arc<Figures>,
    draining: bool,
}

impl Scheduler {
    /// Nothing to do yet.
    pub fn new(model: Arc<LanguageModel>, settings: Settings, figures: Arc<Figures>) -> Self {
        let ledger = Ledger::new(settings.cache_memory);
        let shares = BatchSettings {
            format: model.format(),
            chunk: settings.chunk,
            short_ones_first: 4,
            ..BatchSettings::default()
        };
        let batch = Batch::new(Arc::clone(model.engine()), shares, ledger.clone());
        figures.limit_bytes.set(settings.cache_memory.unwrap_or(0));
        Self {
            model,
            settings,
            ledger,
            batch,
            queue: Queue::new(),
            running: Vec::new(),
            making: VecDeque::new(),
            entries: Entries::default(),
            pace: Pace::default(),
            figures,
            draining: false,
        }
    }

    /// Whether nothing runs and nobody waits.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.running.is_empty() && self.making.is_empty()
    }

    /// One pass of the model, or less where there is nothing to compute: lets go of whoever has gone, lets in whoever fits, and reads a
    /// piece of a document. `clock` tells the time. False where nothing could be done: all that is left waits for memory or for others.
    pub fn step(&mut self, clock: &mut dyn FnMut() -> Instant) -> bool {
        let now = clock();
        self.let_go(now);
        self.entries.expire(now);
        self.admit(now);
        let computed = self.pass(clock);
        let read = self.read_documents(clock);
        self.count();
        computed || read
    }

    /// Tokens of a prompt that one pass may read now.
    fn chunk(&self) -> usize {
        match self.running.iter().any(|running| !running.reading) {
            true => self.pace.chunk(self.settings.stall_target),
            false => self.settings.chunk,
        }
    }

    /// One pass over all that run.
    fn pass(&mut self, clock: &mut dyn FnMut() -> Instant) -> bool {
        if self.batch.is_empty() {
            return false;
        }
        let chunk = self.pace.chunk(self.settings.stall_target);
        self.batch.settings_mut().chunk_beside_rows = chunk;
        let (started, mut events) = (clock(), Vec::new());
        // What the backend said is in the events of those whom it concerns.
        let _ = self.batch.step(&mut |id, event| events.push((id, event)));
        let now = clock();
        let took = now.duration_since(started);
        self.figures.steps.observe(took);
        self.figures.rows.set(self.batch.len().0 as u64);
        let read = self.read_by(&events);
        self.pace.ran(read, took);
        self.figures.prompt_tokens_computed.add(read as u64);
        for (id, event) in events {
            self.hear(id, event, now);
        }
        true
    }

    /// Prompt tokens that a pass has read.
    fn read_by(&self, events: &[(SequenceId, Event)]) -> usize {
        let mut read = 0;
        for (id, event) in events {
            if let (Event::Prefilled { tokens, .. }, Some(running)) = (event, self.of(*id)) {
                read += tokens - running.read.min(*tokens);
            }
        }
        read
    }

    /// Whose sequence it is.
    fn of(&self, id: SequenceId) -> Option<&Running> {
        self.running.iter().find(|running| running.choice(id).is_some())
    }

    /// Ends what nobody waits for any more, and what has had its time.
    fn let_go(&mut self, now: Instant) {
        let before = self.queue.len();
        self.queue.retain(|waiting| !waiting.flags.is_gone());
        self.figures.cancelled_waiting.add((before - self.queue.len()) as u64);
        let late = |since: Instant, deadline: Option<Duration>| {
            deadline.filter(|&deadline| now.duration_since(since) > deadline)
        };
        for place in (0..self.queue.len()).rev() {
            let waiting = &self.queue[place];
            if let Some(deadline) = late(waiting.since, waiting.job.deadline)
                && let Some(mut waiting) = self.queue.remove(place)
            {
                (waiting.job.hear)(Told::Refused(Refusal::Deadline(deadline)));
            }
        }
        for place in (0..self.running.len()).rev() {
            let running = &self.running[place];
            let deadline = late(running.queued_at, running.job.deadline);
            if running.flags.is_gone() || deadline.is_some() {
                self.figures.cancelled_running.add(1);
                let mut running = self.running.remove(place);
                self.abandon(&running, now);
                if let Some(deadline) = deadline {
                    (running.job.hear)(Told::Refused(Refusal::Deadline(deadline)));
                }
                continue;
            }
            self.end_what_has_said_enough(place, now);
        }
        self.making.retain(|making| !making.is_gone());
    }

    /// Says what is in memory now.
    fn count(&self) {
        let figures = &self.figures;
        figures.waiting.set(self.queue.len() as u64);
        figures.running.set(self.batch.len().0 as u64);
        figures.promised_bytes.set(self.ledger.promised());
        figures.held_bytes.set(self.ledger.held());
        let (documents, entries) = self.entries.bytes();
        figures.document_bytes.set(documents);
        figures.entry_bytes.set(entries);
        figures.documents.set(self.entries.documents() as u64);
        figures.ledger_error_bytes.set(self.ledger.held().abs_diff(self.buffers()));
    }

    /// Bytes of all buffers as they lie, each counted once.
    pub(crate) fn buffers(&self) -> u64 {
        let (own, segments) = self.batch.buffers();
        let all = segments.iter().chain(self.entries.segments()).chain(
            self.queue.iter().flat_map(|waiting| waiting.document.iter().flat_map(|found| found.cache.segments())),
        );
        let making: usize = self.making.iter().map(Making::bytes).sum();
        (own + making) as u64 + bytes_of(all)
    }
}

#[cfg(test)]
mod tests;
