//! What others ask of the scheduler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use cokv_core::random::mix;
use cokv_core::{Budget, Frame, Method, PolicyError};
use cokv_models::batch::{Request, Start};
use cokv_models::cache::file::SavedCache;

use super::Scheduler;
use super::documents::Making;
use crate::entries::{DocumentFacts, Entry, Found};
use crate::handle::{Command, Flags, Restored, State};
use crate::job::{Compression, Job, Namespace, NewDocument};
use crate::queue::Waiting;
use crate::refusal::Refusal;
use crate::told::{Document, DocumentTold, MadeBy, Told};

/// What would help where something can never fit.
const ADVICE: &str = "raise --cache-memory, ask for fewer or shorter answers, shorten the prompt, or take q8 caches";
/// Nobody is told to come back later than that.
const LATEST: Duration = Duration::from_secs(120);

impl Scheduler {
    /// Does what is asked. False where that is to end.
    pub(crate) fn obey(&mut self, command: Command, now: Instant) -> bool {
        self.entries.expire(now);
        match command {
            Command::Run(job, flags) => self.take(job, flags, now),
            Command::Read(document, flags) => self.take_document(document, flags, now),
            Command::Restore { saved, of, reply } => reply(self.restore(*saved, of, now)),
            Command::Find { namespace, name, reply } => {
                reply(self.entries.named(&namespace, &name).and_then(Entry::document))
            }
            Command::List { namespace, reply } => reply(self.entries.of(&namespace).collect()),
            Command::Forget { namespace, name, reply } => reply(self.entries.forget(&namespace, &name)),
            Command::Show { namespace, reply } => reply(self.show(&namespace, now)),
            Command::Drain => self.drain(),
            Command::Stop => return false,
            Command::Wake => {}
        }
        true
    }

    /// Puts a job into the queue, unless it can never be run.
    fn take(&mut self, mut job: Job, flags: Arc<Flags>, now: Instant) {
        match self.check(&job) {
            Err(refusal) => (job.hear)(Told::Refused(refusal)),
            Ok((document, made_by)) => {
                (job.hear)(Told::Queued { before: self.queue.len() });
                let (since, overtaken, unfitting) = (now, 0, None);
                self.queue.push_back(Waiting { job, flags, document, made_by, since, overtaken, unfitting });
            }
        }
    }

    /// The document that a job names.
    fn check(&self, job: &Job) -> Result<(Option<Found>, Option<MadeBy>), Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        job.sampling.check(self.model.config().vocabulary)?;
        self.check_length(job.tokens.len(), job.stop.max_new_tokens)?;
        if job.choices == 0 {
            return Err(Refusal::Method("no answer is wanted".into()));
        }
        let (document, made_by) = self.document_of(job)?;
        self.check_compression(job, document.is_some())?;
        let layout = self.model.config().layout;
        let needed = self.whole_need(job).max(match &job.compression {
            Compression::Document { method, budget, tokens, frame, close } => {
                let (beginning, compress) = (job.tokens[..*tokens].to_vec(), Some((method.clone(), *budget)));
                let making = Making::beginning(
                    job.namespace.clone(),
                    beginning,
                    compress,
                    *frame,
                    close.clone(),
                    Instant::now(),
                );
                making.needs(layout, self.model.format())
            }
            Compression::Off | Compression::Question { .. } => 0,
        });
        // A document that is there already need not be read, and is pinned perhaps.
        let there = document.as_ref().map_or(0, |found| found.cache.bytes() as u64);
        self.check_need(needed, there)?;
        if self.queue.len() >= self.settings.queue {
            let tokens = self.queue.iter().map(|waiting| waiting.job.tokens.len()).sum();
            let retry_after = self.pace.time_of(tokens).unwrap_or_default().clamp(Duration::from_secs(1), LATEST);
            return Err(Refusal::QueueFull { waiting: self.queue.len(), retry_after });
        }
        Ok((document, made_by))
    }

    fn check_length(&self, prompt_tokens: usize, max_tokens: usize) -> Result<(), Refusal> {
        let context = self.model.config().max_tokens();
        match prompt_tokens {
            0 => Err(Refusal::Method("the prompt is empty".into())),
            _ if prompt_tokens + max_tokens > context => Err(Refusal::TooLong { prompt_tokens, max_tokens, context }),
            _ => Ok(()),
        }
    }

    fn document_of(&self, job: &Job) -> Result<(Option<Found>, Option<MadeBy>), Refusal> {
        let Some(name) = &job.document else { return Ok((None, None)) };
        let entry = self.entries.named(&job.namespace, name).ok_or_else(|| Refusal::NoDocument(name.clone()))?;
        if job.exact && entry.made_by.is_some() {
            return Err(Refusal::Compressed(name.clone()));
        }
        if job.tokens.len() <= entry.tokens.len() || !job.tokens.starts_with(&entry.tokens) {
            return Err(Refusal::Mismatch { name: name.clone(), tokens: entry.tokens.len() });
        }
        Ok((entry.beginning(entry.tokens.len()), entry.made_by.clone()))
    }

    fn check_compression(&self, job: &Job, has_document: bool) -> Result<(), Refusal> {
        let refused = |message: String| Err(Refusal::Method(message));
        let (method, budget, frame, tokens) = match &job.compression {
            Compression::Off => return Ok(()),
            _ if has_document => {
                return refused("a document's cache is as it was made: leave `compress` or `document` out".into());
            }
            _ if job.exact => return refused("an exact answer and a compressed cache cannot both be had".into()),
            Compression::Question { method, .. } if method.replay().is_some() => {
                return refused(format!(
                    "`{}` reads a document twice, before any question: take the mode `document`",
                    method.name()
                ));
            }
            Compression::Question { method, .. } if job.choices > 1 && method.while_decoding().is_some() => {
                return refused(format!(
                    "`{}` evicts while the model answers: ask for one answer at a time",
                    method.name()
                ));
            }
            Compression::Question { method, budget, frame } => (method, *budget, *frame, job.tokens.len()),
            Compression::Document { tokens, .. } if *tokens == 0 || *tokens >= job.tokens.len() => {
                return refused("nothing follows the document, or nothing is one: say where it ends".into());
            }
            Compression::Document { method, budget, tokens, frame, .. } => (method, *budget, *frame, *tokens),
        };
        let is_document = matches!(job.compression, Compression::Document { .. });
        self.check_method(method, budget, frame, is_document, tokens)
    }

    fn check_method(
        &self,
        method: &Method,
        budget: Budget,
        frame: Frame,
        is_document: bool,
        tokens: usize,
    ) -> Result<(), Refusal> {
        if is_document && method.needs_question() {
            let name = method.name();
            return Err(Refusal::Method(format!(
                "`{name}` scores tokens by a question, and a document is compressed before anybody asks one"
            )));
        }
        if is_document && method.while_decoding().is_some() {
            let name = method.name();
            return Err(Refusal::Method(format!(
                "`{name}` evicts while the model answers, and a document is compressed once"
            )));
        }
        if tokens == 0 {
            return Err(Refusal::Method("the document is empty".into()));
        }
        let (layout, format) = (self.model.config().layout, self.model.format());
        let refused = |error: PolicyError| Refusal::Method(error.to_string());
        method.check(layout).map_err(refused)?;
        if method.evicts() {
            let allowed = method.allowed(budget, layout, tokens, format);
            method.protected(frame).within(allowed, layout, tokens).map_err(refused)?;
        }
        Ok(())
    }

    /// Bytes that a job needs at most where nothing of its prompt is there.
    fn whole_need(&self, job: &Job) -> u64 {
        let (layout, format) = (self.model.config().layout, self.model.format());
        let start = match &job.compression {
            Compression::Question { method, budget, frame } => {
                Start::Prompt { tokens: job.tokens.clone(), frame: *frame, compress: Some((method.clone(), *budget)) }
            }
            _ => Start::Prompt { tokens: job.tokens.clone(), frame: Frame::default(), compress: None },
        };
        let one = Request::greedy(start, job.stop.clone()).bytes(layout, format);
        let answer = job.stop.max_new_tokens * layout.heads() * format.token_bytes(layout.head_dim);
        one + (job.choices.saturating_sub(1) * answer) as u64
    }

    /// Refuses what all memory but that of pinned documents does not suffice for.
    pub(super) fn check_need(&self, needed: u64, there: u64) -> Result<(), Refusal> {
        let Some(limit) = self.ledger.limit() else { return Ok(()) };
        let limit = limit.saturating_sub(self.entries.pinned_bytes()) + there;
        if needed <= limit { Ok(()) } else { Err(Refusal::NeverFits { needed, limit, advice: ADVICE }) }
    }

    fn take_document(&mut self, mut new: NewDocument, flags: Arc<Flags>, now: Instant) {
        let name = new.name.clone().unwrap_or_else(|| name_of(&new.tokens));
        let made_by = new.compress.as_ref().map(|(method, budget)| MadeBy::of(method, *budget));
        if let Some(there) = self.entries.named(&new.namespace, &name) {
            let same = *there.tokens == new.tokens && there.made_by == made_by;
            let told = match there.document().filter(|_| same) {
                Some(document) => DocumentTold::Done { document, made: false },
                None => DocumentTold::Refused(Refusal::DocumentExists(name)),
            };
            (new.hear)(DocumentTold::Queued);
            return (new.hear)(told);
        }
        if let Err(refusal) = self.check_document(&new, &name) {
            return (new.hear)(DocumentTold::Refused(refusal));
        }
        let pinned = new.pin;
        let mut making = Making::named(new, name, flags, now);
        let (layout, format) = (self.model.config().layout, self.model.format());
        let fits = self.check_need(making.needs(layout, format), 0);
        match fits.and_then(|()| self.check_pins(if pinned { making.keeps(layout, format) } else { 0 })) {
            Err(refusal) => making.tell(DocumentTold::Refused(refusal)),
            Ok(()) => {
                making.tell(DocumentTold::Queued);
                self.making.push_back(making);
            }
        }
    }

    fn check_document(&self, new: &NewDocument, name: &str) -> Result<(), Refusal> {
        if self.draining {
            return Err(Refusal::Draining);
        }
        if self.making.iter().any(|making| making.name() == Some(name) && *making.namespace() == new.namespace) {
            return Err(Refusal::DocumentExists(name.into()));
        }
        // Something has to be asked, and something answered.
        self.check_length(new.tokens.len(), 1)?;
        match &new.compress {
            Some((method, budget)) => self.check_method(method, *budget, new.frame, true, new.tokens.len()),
            None => Ok(()),
        }
    }

    /// Refuses another pinned document of so many bytes where that is too many.
    fn check_pins(&self, bytes: u64) -> Result<(), Refusal> {
        let Some(limit) = self.ledger.limit().filter(|_| bytes > 0) else { return Ok(()) };
        let limit = (limit as f64 * self.settings.pin_share) as u64;
        let needed = self.entries.pinned_bytes() + bytes;
        if needed <= limit { Ok(()) } else { Err(Refusal::PinLimit { needed, limit }) }
    }

    /// Takes a document that was read from a file.
    fn restore(&mut self, saved: SavedCache, of: Restored, now: Instant) -> Result<Document, Refusal> {
        let Restored { namespace, shared, name, pin, identity } = of;
        if self.draining {
            return Err(Refusal::Draining);
        }
        if self.entries.named(&namespace, &name).is_some() {
            return Err(Refusal::DocumentExists(name));
        }
        let format = self.model.format();
        let bytes = (saved.kept() * format.token_bytes(self.model.config().layout.head_dim)) as u64;
        self.check_need(bytes, 0)?;
        self.check_pins(if pin { bytes } else { 0 })?;
        if !self.make_room(bytes) {
            return Err(Refusal::NoRoomNow(bytes));
        }
        let mut promise = self.ledger.promise(bytes).ok_or(Refusal::NoRoomNow(bytes))?;
        let description = saved.description.clone();
        let (tokens, text) = (Arc::new(saved.tokens.clone()), saved.text.clone().unwrap_or_default());
        let kept = saved.kept();
        let cache = self.model.restore(saved, &identity).map_err(|error| Refusal::Method(error.to_string()))?;
        if let Some(segment) = cache.segments().next() {
            promise.hold((segment.bytes() as u64).min(bytes));
            segment.hold(promise);
        }
        let whole = kept == tokens.len() * self.model.config().layout.heads();
        let made_by = (!whole).then(|| MadeBy {
            method: description.method.clone(),
            settings: description.method.clone(),
            budget: description.budget.clone(),
            head_scores: description.head_scores.clone(),
        });
        let facts = DocumentFacts { name, text: Arc::new(text), pinned: pin, time_to_live: None };
        let entry = Entry {
            namespace,
            shared,
            tokens,
            cache,
            made_by,
            at_rest: None,
            last_turn: 0,
            document: Some(facts),
            hits: 0,
            used: now,
        };
        let document = entry.document();
        self.entries.insert(entry);
        document.ok_or_else(|| Refusal::Internal("a restored document has no segment".into()))
    }

    fn show(&self, namespace: &Namespace, now: Instant) -> State {
        State {
            waiting: self.queue.len(),
            running: self.batch.len().0,
            limit: self.ledger.limit(),
            promised: self.ledger.promised(),
            held: self.ledger.held(),
            entries: self.entries.states(namespace, now),
        }
    }

    fn drain(&mut self) {
        self.draining = true;
        for mut waiting in self.queue.drain(..) {
            (waiting.job.hear)(Told::Refused(Refusal::Draining));
        }
        for mut making in self.making.drain(..) {
            making.tell(DocumentTold::Refused(Refusal::Draining));
        }
    }

    /// Refuses the jobs whose prompts begin with a document that cannot be read.
    pub(super) fn refuse_those_who_wait_for(&mut self, making: &Making, refusal: &Refusal) {
        let waits = |waiting: &Waiting| match &waiting.job.compression {
            Compression::Document { method, budget, .. } => {
                making.is_beginning_of(&waiting.job.namespace, &waiting.job.tokens, &MadeBy::of(method, *budget))
            }
            Compression::Off | Compression::Question { .. } => false,
        };
        for place in (0..self.queue.len()).rev() {
            if waits(&self.queue[place])
                && let Some(mut waiting) = self.queue.remove(place)
            {
                (waiting.job.hear)(Told::Refused(refusal.clone()));
            }
        }
    }
}

/// A name for tokens that have none.
fn name_of(tokens: &[u32]) -> String {
    let hash = tokens.iter().fold(0u64, |hash, &token| mix(hash ^ u64::from(token)));
    format!("doc-{hash:016x}")
}
