//! Who runs next: sequences that join and leave between passes, a chunk of one prompt beside the tokens of all answers.
//!
//! One thread owns a [`Batch`] and calls [`step`](Batch::step). A sequence is admitted once all the bytes that it will ever
//! need are promised, so that what is admitted ends by itself, by whoever cancels it, or by an error of its own; first come,
//! first served, but a few that fit may overtake one that does not yet.

mod choose;
mod request;
mod sequence;

use std::collections::VecDeque;
use std::sync::Arc;

use cokv_core::Format;

use self::choose::Next;
pub use self::request::{Event, Request, SequenceId, Start, Why};
use self::sequence::{Sequence, Taken};
use crate::cache::{RaggedCache, Segment};
use crate::engine::{Engine, Row};
use crate::error::ModelError;
use crate::ledger::{Ledger, Promise};

/// How a batch shares its passes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchSettings {
    /// How rows of caches are stored.
    pub format: Format,
    /// Prompt tokens of one pass.
    pub chunk: usize,
    /// The same where other rows wait for their next tokens.
    pub chunk_beside_rows: usize,
    /// Sequences that run together at most.
    pub rows: usize,
    /// How many later ones may overtake a sequence that does not fit yet.
    pub overtakes: usize,
    /// How many later prompts that are no longer than a chunk may be read before one that is.
    pub short_ones_first: usize,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            format: Format::default(),
            chunk: 512,
            chunk_beside_rows: 128,
            rows: usize::MAX,
            overtakes: 8,
            short_ones_first: 0,
        }
    }
}

/// Sequences that share passes and memory.
pub struct Batch {
    engine: Arc<dyn Engine>,
    settings: BatchSettings,
    ledger: Ledger,
    waiting: VecDeque<Waiting>,
    /// In the order in which they were admitted, which is that of their rows.
    running: Vec<Sequence>,
    submitted: u64,
}

struct Waiting {
    id: SequenceId,
    request: Request,
    bytes: u64,
    overtaken: usize,
}

impl Batch {
    /// An idle batch.
    pub fn new(engine: Arc<dyn Engine>, settings: BatchSettings, ledger: Ledger) -> Self {
        Self { engine, settings, ledger, waiting: VecDeque::new(), running: Vec::new(), submitted: 0 }
    }

    /// What is promised, and what is held.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Sequences that run, and that wait.
    pub fn len(&self) -> (usize, usize) {
        (self.running.len(), self.waiting.len())
    }

    /// What its sequences hold: bytes that are one sequence's alone, and segments, some of them more than once.
    pub fn buffers(&self) -> (usize, Vec<Arc<Segment>>) {
        let own = self.running.iter().map(Sequence::bytes).sum();
        (own, self.running.iter().flat_map(Sequence::segments).collect())
    }

    /// Whether nothing runs and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// How passes are shared out from now on.
    pub fn settings_mut(&mut self) -> &mut BatchSettings {
        &mut self.settings
    }

    /// Puts a request behind all others. Its answers are named by the id that is returned and by those that follow. Its events go to whoever calls [`step`](Self::step).
    ///
    /// # Errors
    /// Where it can never be run: its prompt is empty or too long, or it needs more memory than there is altogether.
    pub fn submit(&mut self, request: Request) -> Result<SequenceId, ModelError> {
        request.check(self.engine.config())?;
        let bytes = request.bytes(self.engine.config().layout, self.settings.format);
        if !self.ledger.could_ever(bytes) {
            let limit = self.ledger.limit().unwrap_or(u64::MAX);
            return Err(ModelError::OutOfMemory { needed: bytes, limit });
        }
        let id = SequenceId(self.submitted);
        self.submitted += request.answers() as u64;
        self.waiting.push_back(Waiting { id, request, bytes, overtaken: 0 });
        Ok(id)
    }

    /// Lets a sequence go, wherever it is: there are no more events of it. Gives back what it has seen up to here, where all of that is
    /// held.
    pub fn cancel(&mut self, id: SequenceId) -> Option<(RaggedCache, Promise)> {
        if let Some(place) = self.waiting.iter().position(|waiting| waiting.id == id) {
            self.waiting.remove(place);
        }
        let place = self.running.iter().position(|sequence| sequence.id() == id)?;
        self.running.remove(place).abandon()
    }

    /// Admits what memory allows, then runs one pass: a chunk of one prompt, and one token of every answer. False where there
    /// is nothing left to do.
    ///
    /// # Errors
    /// Where the backend fails: what was in the pass is lost, which its sequences are told, and its bytes are free.
    pub fn step(&mut self, heard: &mut dyn FnMut(SequenceId, Event)) -> Result<bool, ModelError> {
        self.admit(heard);
        if self.running.is_empty() {
            return Ok(!self.waiting.is_empty());
        }
        let decoding = self.running.iter().any(Sequence::is_decoding);
        let chunk = if decoding { self.settings.chunk_beside_rows } else { self.settings.chunk };
        let reads = self.next_to_read(chunk);
        let mut rows: Vec<Row<'_>> = Vec::with_capacity(self.running.len());
        let mut places = Vec::with_capacity(self.running.len());
        for (place, sequence) in self.running.iter_mut().enumerate() {
            if !sequence.is_decoding() && reads != Some(place) {
                continue;
            }
            if let Some(row) = sequence.row(chunk) {
                places.push(place);
                rows.push(row);
            }
        }
        let answers = self.engine.step(&mut rows);
        drop(rows);
        let answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                for place in places.into_iter().rev() {
                    let lost = ModelError::Backend(error.to_string());
                    heard(self.running.remove(place).id(), Event::Failed(lost));
                }
                return Err(error);
            }
        };
        let (mut over, mut joining) = (Vec::new(), Vec::new());
        for (place, answer) in places.into_iter().zip(answers) {
            if let Taken::Over(why) = self.running[place].take(answer, &mut joining, heard) {
                over.push((place, why));
            }
        }
        // Ends are told in the order of the rows, and rows keep their places until all are known.
        let ended: Vec<_> = over.into_iter().rev().map(|(place, why)| (self.running.remove(place), why)).collect();
        for (sequence, why) in ended.into_iter().rev() {
            tell_end(sequence, why, heard);
        }
        for (sequence, taken) in joining {
            self.join(sequence, taken, heard);
        }
        Ok(!self.is_empty())
    }

    /// Of the prompts the one that is read next. One at a time: only one whole cache exists beside those of the answers.
    fn next_to_read(&mut self, chunk: usize) -> Option<usize> {
        let mut reading = (0..self.running.len()).filter(|&place| !self.running[place].is_decoding());
        let first = reading.next()?;
        let is_short = |place: &usize| self.running[*place].left_to_read() <= chunk;
        if is_short(&first) || self.running[first].overtaken() >= self.settings.short_ones_first {
            return Some(first);
        }
        let Some(short) = reading.find(is_short) else { return Some(first) };
        self.running[first].overtake();
        Some(short)
    }

    /// Runs a sequence from now on, unless it is over already.
    fn join(&mut self, sequence: Sequence, taken: Taken, heard: &mut dyn FnMut(SequenceId, Event)) {
        match taken {
            Taken::GoesOn => self.running.push(sequence),
            Taken::Over(why) => tell_end(sequence, why, heard),
        }
    }

    /// Lets in whoever's whole need can be promised.
    fn admit(&mut self, heard: &mut dyn FnMut(SequenceId, Event)) {
        let mut place = 0;
        while place < self.waiting.len() && self.running.len() < self.settings.rows {
            let Some(promise) = self.ledger.promise(self.waiting[place].bytes) else {
                // Whoever was overtaken often enough is waited for.
                if self.waiting[place].overtaken >= self.settings.overtakes {
                    return;
                }
                place += 1;
                continue;
            };
            let Some(Waiting { id, mut request, .. }) = self.waiting.remove(place) else { return };
            self.waiting.iter_mut().take(place).for_each(|waiting| waiting.overtaken += 1);
            let first = request.take_first().map(Next::Top);
            match Sequence::new(&self.engine, id, request, self.settings.format, promise) {
                Err(error) => heard(id, Event::Failed(error)),
                Ok(mut sequence) => {
                    let taken = first.map_or(Taken::GoesOn, |first| sequence.choose(&first, heard));
                    self.join(sequence, taken, heard);
                }
            }
        }
    }
}

fn tell_end(sequence: Sequence, why: Result<Why, ModelError>, heard: &mut dyn FnMut(SequenceId, Event)) {
    let (id, event) = sequence.end(why);
    heard(id, event);
}

#[cfg(test)]
mod tests;
