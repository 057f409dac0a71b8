//! One sequence on its way from a prompt to the end of its answer.

use std::mem;
use std::sync::Arc;

use cokv_core::{Budget, Format, Method, ObservationRequest};

use super::ledger::{Ledger, Promise};
use super::request::{Event, Request, SequenceId, Start, Why};
use crate::ask::{Answer, Ask, Top};
use crate::cache::{RaggedCache, Segment};
use crate::engine::{Engine, Row};
use crate::error::ModelError;
use crate::eviction::Eviction;
use crate::prefill::{Compressed, Prefill, Prefilling};
use crate::stop::StopRule;

pub(super) struct Sequence {
    id: SequenceId,
    stop: StopRule,
    answer: Vec<u32>,
    state: State,
    promise: Promise,
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
    /// A cache, the prompt that is this sequence's alone, if it is held beside it, and what keeps the cache small.
    Decoding {
        cache: RaggedCache,
        prompt: Option<Arc<Segment>>,
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
    ) -> Result<Self, (ModelError, Promise)> {
        let Request { start, stop } = request;
        match State::of(engine, start, &stop, format) {
            Ok(state) => Ok(Self { id, stop, answer: Vec::new(), state, promise }),
            Err(error) => Err((error, promise)),
        }
    }

    pub fn id(&self) -> SequenceId {
        self.id
    }

    pub fn is_decoding(&self) -> bool {
        matches!(self.state, State::Decoding { .. })
    }

    /// Bytes of its buffers.
    pub fn bytes(&self) -> usize {
        self.state.bytes()
    }

    /// Writes down what it holds. While it decodes that is all it needs: room for the whole answer was made before, unless its cache
    /// is copied again and again.
    pub fn account(&mut self, ledger: &mut Ledger) {
        let bytes = self.bytes() as u64;
        ledger.hold(&mut self.promise, bytes);
        if matches!(self.state, State::Decoding { eviction: None, .. }) {
            ledger.lower(&mut self.promise, bytes);
        }
    }

    /// Its next tokens: one of an answer, or at most `chunk` of what comes before.
    pub fn row(&mut self, chunk: usize) -> Option<Row<'_>> {
        match &mut self.state {
            State::Prefilling { prompt, .. } => Some(prompt.row(chunk)),
            State::Feeding { cache, before, tokens } => {
                let fed = cache.next_position() - *before;
                let end = tokens.len().min(fed + chunk);
                let ask = if end == tokens.len() { self.stop.ask(0) } else { Ask::Nothing };
                Some(Row::new(&tokens[fed..end], cache, ask).within(*before + tokens.len()))
            }
            State::Decoding { cache, eviction, .. } => {
                let last = std::slice::from_ref(self.answer.last()?);
                let row = Row::new(last, cache, self.stop.ask(self.answer.len()));
                let watches = eviction.iter_mut().map(|eviction| eviction.watch());
                Some(Row { watches: watches.collect(), ..row })
            }
            State::Over => None,
        }
    }

    /// Takes the answer to its row.
    pub fn take(&mut self, answer: Answer, heard: &mut dyn FnMut(Event)) -> Taken {
        match mem::replace(&mut self.state, State::Over).advance(answer, &self.stop, heard) {
            Err(error) => Taken::Over(Err(error)),
            Ok((state, top)) => {
                self.state = state;
                top.map_or(Taken::GoesOn, |top| self.choose(&top, heard))
            }
        }
    }

    /// Chooses the next token.
    pub fn choose(&mut self, top: &Top, heard: &mut dyn FnMut(Event)) -> Taken {
        let most = self.stop.max_new_tokens;
        if self.answer.len() >= most {
            return Taken::Over(Ok(Why::Length));
        }
        let token = self.stop.choose(top, self.answer.len());
        if self.stop.tokens.contains(&token) {
            return Taken::Over(Ok(Why::Stop));
        }
        self.answer.push(token);
        heard(Event::Token(token));
        if self.answer.len() < most { Taken::GoesOn } else { Taken::Over(Ok(Why::Length)) }
    }

    /// Its last event, and what was promised to it.
    pub fn end(self, why: Result<Why, ModelError>) -> (SequenceId, Event, Promise) {
        let event = match (why, self.state) {
            (Ok(why), State::Decoding { cache, eviction, .. }) => {
                let held = eviction.map_or(0, |eviction| eviction.most_held());
                Event::Ended { why, answer: self.answer, most_held: held.max(cache.total_tokens()), cache }
            }
            (Ok(_), state) => Event::Failed(state.out_of_turn()),
            (Err(error), _) => Event::Failed(error),
        };
        (self.id, event, self.promise)
    }

    /// Lets its buffers go.
    pub fn abandon(self) -> Promise {
        self.promise
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
                Ok(State::Decoding { cache, prompt: None, eviction })
            }
            Start::Then { mut cache, tokens } => {
                cache.reserve(tokens.len() + room)?;
                Ok(State::Feeding { before: cache.next_position(), cache, tokens })
            }
        }
    }

    /// Bytes of its buffers.
    fn bytes(&self) -> usize {
        match self {
            State::Prefilling { prompt, .. } => prompt.bytes(),
            State::Feeding { cache, .. } => cache.own_bytes(),
            State::Decoding { cache, prompt, .. } => {
                cache.own_bytes() + prompt.as_ref().map_or(0, |prompt| prompt.bytes())
            }
            State::Over => 0,
        }
    }

    /// What comes next, and what to choose a token from, if it is time to.
    fn advance(
        self,
        answer: Answer,
        stop: &StopRule,
        heard: &mut dyn FnMut(Event),
    ) -> Result<(Self, Option<Top>), ModelError> {
        match self {
            State::Decoding { mut cache, prompt, mut eviction } => {
                let top = answer.top(|| "while decoding".into())?;
                if let Some(eviction) = &mut eviction
                    && eviction.after(&mut cache, 1)?
                {
                    heard(Event::Evicted { tokens: cache.total_tokens() });
                }
                Ok((State::Decoding { cache, prompt, eviction }, Some(top)))
            }
            State::Feeding { cache, before, tokens } => {
                let (done, of) = (cache.next_position() - before, tokens.len());
                heard(Event::Prefilled { tokens: done, of });
                if done < of {
                    return Ok((State::Feeding { cache, before, tokens }, None));
                }
                let top = answer.top(|| "after the end of the prompt".into())?;
                Ok((State::Decoding { cache, prompt: None, eviction: None }, Some(top)))
            }
            State::Prefilling { mut prompt, of, compress } => {
                prompt.take(answer)?;
                heard(Event::Prefilled { tokens: prompt.done(), of });
                if prompt.left() > 0 {
                    return Ok((State::Prefilling { prompt, of, compress }, None));
                }
                let prefill = prompt.finish()?;
                let first = prefill.first(stop);
                Ok((State::after(prefill, compress, stop.max_new_tokens, heard)?, Some(first)))
            }
            State::Over => Err(self.out_of_turn()),
        }
    }

    /// A prompt that is read, or what is kept of it, with room for an answer.
    fn after(
        prefill: Prefill,
        compress: Option<(Method, Budget)>,
        room: usize,
        heard: &mut dyn FnMut(Event),
    ) -> Result<Self, ModelError> {
        let (mut cache, prompt, eviction) = match compress.filter(|(method, _)| method.evicts()) {
            None => (RaggedCache::full(prefill.prompt()), Some(Arc::clone(prefill.prompt())), None),
            Some((method, budget)) => {
                // One head that shared the prompt would hold all of it.
                let Compressed { cache, allowed, eviction, .. } = prefill.compress_apart(&method, budget)?;
                let (tokens, bytes) = (cache.total_tokens(), cache.own_bytes());
                heard(Event::Compressed { tokens, bytes, allowed });
                (cache, None, eviction.map(Box::new))
            }
        };
        drop(prefill);
        cache.reserve(until_evicted(room, eviction.as_deref()))?;
        Ok(State::Decoding { cache, prompt, eviction })
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
