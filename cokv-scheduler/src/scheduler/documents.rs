//! Documents on their way: read, perhaps a second time, and compressed, in pieces beside whatever else runs.

use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cokv_core::{Budget, Format, Frame, HeadLayout, Method, ObservationRequest};
use cokv_models::cache::{RaggedCache, Segment};
use cokv_models::ledger::Promise;
use cokv_models::{Compressed, LanguageModel, ModelError, Prefill, Prefilling, Scoring, SecondPass};

use super::Scheduler;
use super::hear::refusal;
use super::room::hold;
use crate::entries::{DocumentFacts, Entry};
use crate::handle::Flags;
use crate::job::{Namespace, NewDocument};
use crate::refusal::Refusal;
use crate::told::{DocumentTold, MadeBy};

/// Once documents wait so long for memory, nobody else is let in.
const PATIENCE: Duration = Duration::from_secs(10);

/// A document on its way.
pub struct Making {
    namespace: Namespace,
    shared: bool,
    tokens: Arc<Vec<u32>>,
    compress: Option<(Method, Budget)>,
    made_by: Option<MadeBy>,
    frame: Frame,
    close: Vec<u32>,
    facts: Option<DocumentFacts>,
    /// None of a prompt's beginning that nobody has named.
    owner: Option<Owner>,
    state: State,
    since: Instant,
}

struct Owner {
    flags: Arc<Flags>,
    hear: Box<dyn FnMut(DocumentTold) + Send>,
}

enum State {
    Waiting,
    Reading(Box<Prefilling>, Promise),
    ReadingAgain(Box<Prefill>, Box<SecondPass>, Promise),
    Scoring(Box<Prefill>, Box<Scoring>, Promise),
    Over,
}

/// What came of a piece of work.
enum Piece {
    More(State),
    Made(Arc<Segment>),
}

impl Making {
    /// A document that somebody wants.
    pub fn named(new: NewDocument, name: String, flags: Arc<Flags>, now: Instant) -> Self {
        let NewDocument { namespace, shared, tokens, text, compress, frame, close, pin, time_to_live, hear, .. } = new;
        let made_by = compress.as_ref().map(|(method, budget)| MadeBy::of(method, *budget));
        let facts = Some(DocumentFacts { name, text: Arc::new(text), pinned: pin, time_to_live });
        let owner = Some(Owner { flags, hear });
        let (tokens, state) = (Arc::new(tokens), State::Waiting);
        Self { namespace, shared, tokens, compress, made_by, frame, close, facts, owner, state, since: now }
    }

    /// The beginning of a prompt, for whoever has the same.
    pub fn beginning(
        namespace: Namespace,
        tokens: Vec<u32>,
        compress: Option<(Method, Budget)>,
        frame: Frame,
        close: Vec<u32>,
        now: Instant,
    ) -> Self {
        let made_by = compress.as_ref().map(|(method, budget)| MadeBy::of(method, *budget));
        let (tokens, shared, state) = (Arc::new(tokens), false, State::Waiting);
        Self { namespace, shared, tokens, compress, made_by, frame, close, facts: None, owner: None, state, since: now }
    }

    pub fn is_gone(&self) -> bool {
        self.owner.as_ref().is_some_and(|owner| owner.flags.is_gone())
    }

    pub fn name(&self) -> Option<&str> {
        self.facts.as_ref().map(|facts| facts.name.as_str())
    }

    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub fn is_of(&self, namespace: &Namespace, tokens: &[u32], made_by: &MadeBy) -> bool {
        self.namespace == *namespace && self.made_by.as_ref() == Some(made_by) && self.tokens.as_slice() == tokens
    }

    /// Bytes of its buffers.
    pub fn bytes(&self) -> usize {
        match &self.state {
            State::Waiting | State::Over => 0,
            State::Reading(prompt, _) => prompt.bytes(),
            State::ReadingAgain(prefill, again, _) => prefill.prompt().bytes() + again.bytes(),
            State::Scoring(prefill, ..) => prefill.prompt().bytes(),
        }
    }

    /// Bytes that are left of it at most.
    pub fn keeps(&self, layout: HeadLayout, format: Format) -> u64 {
        let whole = self.tokens.len() * layout.heads();
        let budget = self.compress.as_ref().map(|(_, budget)| budget.total_tokens(layout, self.tokens.len(), format));
        (budget.unwrap_or(whole).min(whole) * format.token_bytes(layout.head_dim)) as u64
    }

    /// Bytes that it needs at most: of the whole, of what is kept of it or what is fed again, and of what is written down of it.
    pub fn needs(&self, layout: HeadLayout, format: Format) -> u64 {
        let tokens = self.tokens.len();
        let whole = (tokens * layout.heads() * format.token_bytes(layout.head_dim)) as u64;
        let Some((method, _)) = &self.compress else { return whole };
        let again = method.replay().map_or(0, |replay| SecondPass::most_bytes(&replay, layout, format, tokens));
        whole + self.keeps(layout, format).max(again as u64)
    }

    pub fn tell(&mut self, told: DocumentTold) {
        if let Some(owner) = &mut self.owner {
            (owner.hear)(told);
        }
    }

    /// Reads at most so many tokens of it, or scores at most so many layers.
    fn work(&mut self, model: &LanguageModel, chunk: usize, layers: usize) -> Result<Piece, ModelError> {
        match mem::replace(&mut self.state, State::Over) {
            State::Waiting | State::Over => Err(ModelError::Backend("a document was read out of turn".into())),
            State::Reading(mut prompt, mut promise) => {
                for answer in model.engine().step(&mut [prompt.row(chunk)])? {
                    prompt.take(answer)?;
                }
                promise.hold(prompt.bytes() as u64);
                let replay = self.compress.as_ref().and_then(|(method, _)| method.replay());
                let again = replay.as_ref().map_or(0, |_| self.tokens.len());
                self.tell(DocumentTold::Read { tokens: prompt.done(), of: self.tokens.len() + again });
                if prompt.left() > 0 {
                    return Ok(Piece::More(State::Reading(prompt, promise)));
                }
                let prefill = prompt.finish()?.within(self.frame);
                match replay {
                    None => self.scored(Box::new(prefill), promise),
                    Some(replay) => {
                        let again = SecondPass::new(model.tokenizer(), &prefill, &replay, &self.close)?;
                        Ok(Piece::More(State::ReadingAgain(Box::new(prefill), Box::new(again), promise)))
                    }
                }
            }
            State::ReadingAgain(mut prefill, mut again, mut promise) => {
                again.step(&prefill, chunk)?;
                promise.hold((prefill.prompt().bytes() + again.bytes()) as u64);
                let (read, all) = (self.tokens.len() + again.done(), self.tokens.len() + again.done() + again.left());
                self.tell(DocumentTold::Read { tokens: read, of: all });
                if again.left() > 0 {
                    return Ok(Piece::More(State::ReadingAgain(prefill, again, promise)));
                }
                again.finish(&mut prefill);
                self.scored(prefill, promise)
            }
            State::Scoring(prefill, mut scoring, promise) => {
                for _ in 0..layers.min(scoring.left()) {
                    scoring.step(&prefill)?;
                }
                match scoring.left() {
                    0 => self.compressed(&prefill, *scoring, promise),
                    _ => Ok(Piece::More(State::Scoring(prefill, scoring, promise))),
                }
            }
        }
    }

    /// It is read, and scored next where not all of it is kept.
    fn scored(&self, prefill: Box<Prefill>, promise: Promise) -> Result<Piece, ModelError> {
        match self.compress.as_ref().filter(|(method, _)| method.evicts()) {
            None => Ok(made(Arc::clone(prefill.prompt()), promise)),
            Some((method, budget)) => {
                let scoring = Scoring::new(&prefill, &[(method, prefill.allowed(method, *budget))]);
                Ok(Piece::More(State::Scoring(prefill, Box::new(scoring), promise)))
            }
        }
    }

    /// What is kept of it.
    fn compressed(&self, prefill: &Prefill, scoring: Scoring, promise: Promise) -> Result<Piece, ModelError> {
        let nothing = || ModelError::Backend("no head keeps any token of the document".into());
        let ((method, budget), scores) = self.compress.as_ref().zip(scoring.finish().pop()).ok_or_else(nothing)?;
        let Compressed { cache, .. } = prefill.compress_apart_scored(method, &scores, *budget)?;
        Ok(made(cache.into_segment()?.ok_or_else(nothing)?, promise))
    }

    /// What is kept of it from now on.
    fn entry(&self, segment: &Arc<Segment>, now: Instant) -> Entry {
        Entry {
            namespace: self.namespace.clone(),
            shared: self.shared,
            tokens: Arc::clone(&self.tokens),
            cache: RaggedCache::full(segment),
            made_by: self.made_by.clone(),
            at_rest: None,
            last_turn: 0,
            document: self.facts.clone(),
            hits: 0,
            used: now,
        }
    }
}

fn made(segment: Arc<Segment>, promise: Promise) -> Piece {
    hold(&segment, promise);
    Piece::Made(segment)
}

impl Scheduler {
    /// Reads a piece of the first document that is on its way.
    pub(super) fn read_documents(&mut self, clock: &mut dyn FnMut() -> Instant) -> bool {
        let Some(mut making) = self.making.pop_front() else { return false };
        let started = clock();
        if matches!(making.state, State::Waiting) {
            match self.begin(&making) {
                Ok(Some(state)) => making.state = state,
                Ok(None) => {
                    self.making.push_front(making);
                    return false;
                }
                Err(refusal) => {
                    self.give_up(making, refusal);
                    return true;
                }
            }
        }
        let before = making.read();
        // Whoever is being answered waits for one layer at a time.
        let layers = if self.batch.is_empty() { usize::MAX } else { 1 };
        match making.work(&self.model, self.chunk(), layers) {
            Ok(Piece::More(state)) => {
                making.state = state;
                let read = making.read().saturating_sub(before);
                self.figures.prompt_tokens_computed.add(read as u64);
                self.pace.ran(read, clock().duration_since(started));
                self.making.push_front(making);
            }
            Ok(Piece::Made(segment)) => {
                let now = clock();
                self.figures.compressing.observe(now.duration_since(making.since));
                let entry = making.entry(&segment, now);
                let document = entry.document();
                self.entries.insert(entry);
                if let Some(document) = document {
                    making.tell(DocumentTold::Done { document, made: true });
                }
            }
            Err(error) => self.give_up(making, refusal(error)),
        }
        true
    }

    /// Makes room for a document's buffers; none where there is none yet.
    fn begin(&mut self, making: &Making) -> Result<Option<State>, Refusal> {
        let format = self.model.format();
        let needed = making.needs(self.model.config().layout, format);
        if !self.make_room(needed) {
            // What was pinned meanwhile may have taken the room for good.
            return self.check_need(needed, 0).map(|()| None);
        }
        let Some(mut promise) = self.ledger.promise(needed) else { return Ok(None) };
        let nothing = ObservationRequest::default();
        let observed = making.compress.as_ref().map_or(nothing, |(method, _)| method.observations(making.frame));
        let prompt = Prefilling::new(self.model.engine(), making.tokens.to_vec(), format, observed).map_err(refusal)?;
        let prompt = prompt.within(making.frame);
        promise.hold(prompt.bytes() as u64);
        Ok(Some(State::Reading(Box::new(prompt), promise)))
    }

    /// A document cannot be read; whoever waits for it is told.
    fn give_up(&mut self, mut making: Making, refusal: Refusal) {
        if making.owner.is_none() {
            self.refuse_those_who_wait_for(&making, &refusal);
        }
        making.tell(DocumentTold::Refused(refusal));
    }

    /// Whether a document has waited for memory so long that nobody else is let in.
    pub(super) fn documents_starve(&self, now: Instant) -> bool {
        let first = self.making.front();
        first.is_some_and(|making| {
            matches!(making.state, State::Waiting) && now.duration_since(making.since) >= PATIENCE
        })
    }
}

impl Making {
    /// Tokens that are read, those of a second pass included.
    fn read(&self) -> usize {
        match &self.state {
            State::Waiting | State::Over => 0,
            State::Reading(prompt, _) => prompt.done(),
            State::ReadingAgain(_, again, _) => self.tokens.len() + again.done(),
            State::Scoring(..) => self.tokens.len(),
        }
    }

    /// Whether a prompt begins with it, and wants it made just so.
    pub fn is_beginning_of(&self, namespace: &Namespace, tokens: &[u32], made_by: &MadeBy) -> bool {
        tokens.len() >= self.tokens.len() && self.is_of(namespace, &tokens[..self.tokens.len()], made_by)
    }
}
