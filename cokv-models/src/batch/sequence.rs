//! One sequence on its way from a prompt to the end of its answer.

use std::mem;
use std::sync::Arc;

use cokv_core::{Budget, Format, Method, ObservationRequest};

use super::choose::{Choose, Next};
use super::request::{Event, Request, SequenceId, Start, Why};
use crate::ask::{Answer, Ask};
use crate::cache::{RaggedCache, SLICES, Segment};
use crate::engine::{Engine, Row};
use crate::error::ModelError;
use crate::eviction::Eviction;
use crate::ledger::Promise;
use crate::prefill::{Compressed, Prefill, Prefilling};
use crate::stop::StopRule;

pub(super) struct Sequence {
    id: SequenceId,
    stop: StopRule,
    choose: Choose,
    /// Those of the other answers, until the prompt is read that they have in common.
    others: Vec<Choose>,
    answer: Vec<u32>,
    state: State,
    promise: Promise,
    /// Later ones that were read before it.
    overtaken: usize,
}

enum State {
    /// A prompt of so many tokens, and what will compress it.
    Prefilling {
        prompt: Box<Prefilling>,
        of: usize,
        compress: Option<(Method, Budget)>,
    },
    /// A cache that had seen so many tokens before these.
    Feeding {
        cache: RaggedCache,
        before: usize,
        tokens: Vec<u32>,
    },
    /// A cache, and what keeps it small.
    Decoding {
        cache: RaggedCache,
        eviction: Option<Box<Eviction>>,
    },
    Over,
}

/// What became of a row's answer.
pub(super) enum Taken {
    GoesOn,
    Over(Result<Why, ModelError>),
}

impl Sequence {
    /// Makes all buffers whose size is known already.
    pub fn new(
        engine: &Arc<dyn Engine>,
        id: SequenceId,
        request: Request,
        format: Format,
        promise: Promise,
    ) -> Result<Self, ModelError> {
        let Request { start, stop, samplers, constraint } = request;
        let mut samplers = samplers.into_iter();
        let first = samplers.next();
        let fork = || constraint.as_ref().map(|constraint| constraint.fork());
        let others: Vec<Choose> = samplers.map(|sampler| Choose::of(sampler, fork())).collect();
        let choose = match first {
            Some(sampler) => Choose::of(sampler, constraint),
            None => Choose::likeliest(constraint),
        };
        let state = State::of(engine, start, &stop, format)?;
        let mut sequence = Self { id, stop, choose, others, answer: Vec::new(), state, promise, overtaken: 0 };
        sequence.account();
        Ok(sequence)
    }

    pub fn id(&self) -> SequenceId {
        self.id
    }

    pub fn is_decoding(&self) -> bool {
        matches!(self.state, State::Decoding { .. })
    }

    /// Tokens of its prompt that are not read yet.
    pub fn left_to_read(&self) -> usize {
        match &self.state {
            State::Prefilling { prompt, .. } => prompt.left(),
            State::Feeding { cache, before, tokens } => *before + tokens.len() - cache.next_position(),
            State::Decoding { .. } | State::Over => 0,
        }
    }

    /// Bytes of its own buffers.
    pub fn bytes(&self) -> usize {
        self.state.own_bytes()
    }

    /// Frozen buffers that it reads.
    pub fn segments(&self) -> Vec<Arc<Segment>> {
        match &self.state {
            State::Feeding { cache, .. } | State::Decoding { cache, .. } => cache.segments().cloned().collect(),
            State::Prefilling { .. } | State::Over => Vec::new(),
        }
    }

    /// Writes down what it holds. While it decodes that is all it needs: room for the whole answer was made before, unless its cache
    /// is copied again and again, or other answers are to come.
    fn account(&mut self) {
        let bytes = self.bytes() as u64;
        self.promise.hold(bytes);
        if matches!(self.state, State::Decoding { eviction: None, .. }) && self.others.is_empty() {
            self.promise.lower(bytes);
        }
    }

    /// Shorter ones that were read before it.
    pub fn overtaken(&self) -> usize {
        self.overtaken
    }

    /// Counts another one.
    pub fn overtake(&mut self) {
        self.overtaken += 1;
    }

    /// Its next tokens: one of an answer, or at most `chunk` of what comes before.
    pub fn row(&mut self, chunk: usize) -> Option<Row<'_>> {
        match &mut self.state {
            State::Prefilling { prompt, .. } => Some(prompt.row(chunk)),
            State::Feeding { cache, before, tokens } => {
                let fed = cache.next_position() - *before;
                let end = tokens.len().min(fed + chunk);
                let ask = if end == tokens.len() { self.choose.ask(&self.stop, 0) } else { Ask::Nothing };
                // All that draw from it are of a kind.
                Some(Row::new(&tokens[fed..end], cache, ask).within(*before + tokens.len()))
            }
            State::Decoding { cache, eviction } => {
                let last = std::slice::from_ref(self.answer.last()?);
                let row = Row::new(last, cache, self.choose.ask(&self.stop, self.answer.len()));
                let watches = eviction.iter_mut().map(|eviction| eviction.watch());
                Some(Row { watches: watches.collect(), ..row })
            }
            State::Over => None,
        }
    }

    /// Takes the answer to its row. Where the prompt is read that several answers have in common, the others join the sequences.
    pub fn take(
        &mut self,
        answer: Answer,
        joining: &mut Vec<(Self, Taken)>,
        heard: &mut dyn FnMut(SequenceId, Event),
    ) -> Taken {
        let (id, several) = (self.id, !self.others.is_empty());
        let state = mem::replace(&mut self.state, State::Over);
        let (state, next) =
            match state.advance(answer, &self.stop, several, &mut self.promise, &mut |event| heard(id, event)) {
                Ok(advanced) => advanced,
                Err(error) => return Taken::Over(Err(error)),
            };
        self.state = state;
        let Some(next) = next else {
            self.account();
            return Taken::GoesOn;
        };
        for (place, choose) in mem::take(&mut self.others).into_iter().enumerate() {
            match self.sibling(SequenceId(id.0 + 1 + place as u64), choose) {
                Ok(mut sibling) => {
                    let taken = sibling.choose(&next, heard);
                    joining.push((sibling, taken));
                }
                Err(error) => return Taken::Over(Err(error)),
            }
        }
        self.account();
        self.choose(&next, heard)
    }

    /// Another answer to the same prompt.
    fn sibling(&mut self, id: SequenceId, choose: Choose) -> Result<Self, ModelError> {
        let State::Decoding { cache, .. } = &self.state else { return Err(self.state.out_of_turn()) };
        let mut cache = cache.fork()?;
        cache.reserve(self.stop.max_new_tokens)?;
        let state = State::Decoding { cache, eviction: None };
        let promise = self.promise.set_aside(state.own_bytes() as u64);
        let mut sibling = Self {
            id,
            stop: self.stop.clone(),
            choose,
            others: Vec::new(),
            answer: Vec::new(),
            state,
            promise,
            overtaken: 0,
        };
        sibling.account();
        Ok(sibling)
    }

    /// Chooses the next token.
    pub fn choose(&mut self, next: &Next, heard: &mut dyn FnMut(SequenceId, Event)) -> Taken {
        let most = self.stop.max_new_tokens;
        if self.answer.len() >= most {
            return Taken::Over(Ok(Why::Length));
        }
        match self.draw(next, heard) {
            Err(error) => Taken::Over(Err(error)),
            Ok(true) => Taken::Over(Ok(Why::Stop)),
            Ok(false) if self.answer.len() < most => Taken::GoesOn,
            Ok(false) => Taken::Over(Ok(Why::Length)),
        }
    }

    /// Draws the next token, and says whether the answer ends with it or before it.
    fn draw(&mut self, next: &Next, heard: &mut dyn FnMut(SequenceId, Event)) -> Result<bool, ModelError> {
        if self.answer.is_empty() && self.choose.is_over()? {
            return Ok(true);
        }
        let (token, logprobs) = self.choose.draw(next, &self.stop, self.answer.len())?;
        if self.stop.tokens.contains(&token) {
            return Ok(true);
        }
        self.answer.push(token);
        heard(self.id, Event::Token { token, logprobs });
        self.choose.is_over()
    }

    /// Its last event.
    pub fn end(self, why: Result<Why, ModelError>) -> (SequenceId, Event) {
        let event = match (why, self.state) {
            (Ok(why), State::Decoding { cache, eviction }) => {
                let held = eviction.map_or(0, |eviction| eviction.most_held());
                let most_held = held.max(cache.total_tokens());
                Event::Ended { why, answer: self.answer, most_held, cache, promise: self.promise }
            }
            (Ok(_), state) => Event::Failed(state.out_of_turn()),
            (Err(error), _) => Event::Failed(error),
        };
        (self.id, event)
    }

    /// What it has seen up to here, with the promise for what of it is its own.
    pub fn abandon(self) -> Option<(RaggedCache, Promise)> {
        match self.state {
            State::Feeding { cache, .. } | State::Decoding { cache, .. } => Some((cache, self.promise)),
            State::Prefilling { .. } | State::Over => None,
        }
    }
}

impl State {
    fn of(engine: &Arc<dyn Engine>, start: Start, stop: &StopRule, format: Format) -> Result<Self, ModelError> {
        let room = stop.max_new_tokens;
        match start {
            Start::Prompt { tokens, frame, compress } => {
                let nothing = ObservationRequest::default();
                let observed = compress.as_ref().map_or(nothing, |(method, _)| method.observations(frame));
                if let Some((method, _)) = compress.as_ref().filter(|(method, _)| method.replay().is_some()) {
                    let instead = "prefill, replay and compress it, then submit its cache";
                    return Err(ModelError::NoReplay { method: method.name().into(), instead });
                }
                let of = tokens.len();
                let prompt = Box::new(Prefilling::new(engine, tokens, format, observed)?.within(frame));
                Ok(State::Prefilling { prompt, of, compress })
            }
            Start::Cache { mut cache, eviction, .. } => {
                cache.reserve(until_evicted(room, eviction.as_deref()))?;
                Ok(State::Decoding { cache, eviction })
            }
            Start::Then { mut cache, tokens } => {
                cache.reserve(tokens.len())?;
                Ok(State::Feeding { before: cache.next_position(), cache, tokens })
            }
        }
    }

    /// Bytes of its own buffers.
    fn own_bytes(&self) -> usize {
        match self {
            State::Feeding { cache, .. } | State::Decoding { cache, .. } => cache.own_bytes(),
            State::Prefilling { prompt, .. } => prompt.bytes(),
            State::Over => 0,
        }
    }

    /// What comes next, and what to choose a token from, if it is time to. Where `several` answers follow, what they have in common
    /// is frozen.
    fn advance(
        self,
        answer: Answer,
        stop: &StopRule,
        several: bool,
        promise: &mut Promise,
        heard: &mut dyn FnMut(Event),
    ) -> Result<(Self, Option<Next>), ModelError> {
        match self {
            State::Decoding { mut cache, mut eviction } => {
                let next = Next::of(answer, || "while decoding".into())?;
                if let Some(eviction) = &mut eviction
                    && eviction.after(&mut cache, 1)?
                {
                    heard(Event::Evicted { tokens: cache.total_tokens() });
                }
                Ok((State::Decoding { cache, eviction }, Some(next)))
            }
            State::Feeding { mut cache, before, tokens } => {
                let (done, of) = (cache.next_position() - before, tokens.len());
                heard(Event::Prefilled { tokens: done, of });
                if done < of {
                    return Ok((State::Feeding { cache, before, tokens }, None));
                }
                let next = Next::of(answer, || "after the end of the prompt".into())?;
                if cache.segments().count() < SLICES {
                    freeze(&mut cache, promise)?;
                    heard(Event::Read { cache: cache.fork()? });
                }
                cache.reserve(stop.max_new_tokens)?;
                Ok((State::Decoding { cache, eviction: None }, Some(next)))
            }
            State::Prefilling { mut prompt, of, compress } => {
                prompt.take(answer)?;
                heard(Event::Prefilled { tokens: prompt.done(), of });
                if prompt.left() > 0 {
                    return Ok((State::Prefilling { prompt, of, compress }, None));
                }
                let prefill = prompt.finish()?;
                let next = Next::Logits(prefill.logits().to_vec());
                Ok((State::after(prefill, compress, stop.max_new_tokens, several, promise, heard)?, Some(next)))
            }
            State::Over => Err(self.out_of_turn()),
        }
    }

    /// A prompt that is read, or what is kept of it, with room for an answer.
    fn after(
        prefill: Prefill,
        compress: Option<(Method, Budget)>,
        room: usize,
        several: bool,
        promise: &mut Promise,
        heard: &mut dyn FnMut(Event),
    ) -> Result<Self, ModelError> {
        let (mut cache, eviction) = match compress.filter(|(method, _)| method.evicts()) {
            None => {
                let prompt = prefill.prompt();
                promise.hold(prompt.bytes() as u64);
                prompt.hold(promise.hand_over(prompt.bytes() as u64));
                let cache = RaggedCache::full(prompt);
                heard(Event::Read { cache: cache.fork()? });
                (cache, None)
            }
            Some((method, budget)) => {
                // One head that shared the prompt would hold all of it.
                let Compressed { mut cache, allowed, eviction, .. } = prefill.compress_apart(&method, budget)?;
                let (tokens, bytes) = (cache.total_tokens(), cache.own_bytes());
                heard(Event::Compressed { tokens, bytes, allowed });
                if several {
                    freeze(&mut cache, promise)?;
                }
                (cache, eviction.map(Box::new))
            }
        };
        drop(prefill);
        cache.reserve(until_evicted(room, eviction.as_deref()))?;
        Ok(State::Decoding { cache, eviction })
    }

    fn out_of_turn(&self) -> ModelError {
        let what = match self {
            State::Prefilling { .. } | State::Feeding { .. } => "a sequence ended before its answer",
            State::Decoding { .. } | State::Over => "a sequence that is over was run",
        };
        ModelError::Backend(what.into())
    }
}

/// Of an answer's tokens those that come before anything is evicted.
fn until_evicted(tokens: usize, eviction: Option<&Eviction>) -> usize {
    eviction.map_or(tokens, |eviction| tokens.min(eviction.most_growth()))
}

/// Freezes a cache's own rows, whose memory the promise goes with.
fn freeze(cache: &mut RaggedCache, promise: &mut Promise) -> Result<(), ModelError> {
    let bytes = cache.own_bytes() as u64;
    promise.hold(bytes);
    cache.freeze()?;
    if let Some(segment) = cache.segments().last() {
        segment.hold(promise.hand_over(bytes));
    }
    Ok(())
}
