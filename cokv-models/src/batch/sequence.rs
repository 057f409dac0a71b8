//! One sequence on its way from a prompt to the end of its answer.

use std::sync::Arc;

use cokv_core::{Budget, Format, HeadSelection, Method, ObservationRequest};

use super::ledger::{Ledger, Promise};
use super::request::{Event, Request, SequenceId, Start, Why};
use crate::ask::{Answer, Ask, Top};
use crate::cache::{RaggedCache, Segment};
use crate::engine::{Engine, Row};
use crate::error::ModelError;
use crate::generate::StopRule;
use crate::prefill::{Prefill, Prefilling};

pub(super) struct Sequence {
    id: SequenceId,
    stop: StopRule,
    answer: Vec<u32>,
    state: State,
    promise: Promise,
}

enum State {
    Prefilling { prompt: Box<Prefilling>, of: usize, compress: Option<(Method, Budget)> },
    Feeding { cache: RaggedCache, tokens: Vec<u32>, fed: usize },
    /// The prompt that is this sequence's alone, if it is held beside the cache.
    Decoding { cache: RaggedCache, prompt: Option<Arc<Segment>> },
}

/// What became of an answer.
pub(super) enum Taken {
    GoesOn,
    Over(Result<Why, ModelError>),
}

impl Sequence {
    /// Makes all buffers that are known already. A cache that has seen everything has its first token at once.
    pub fn start(
        engine: &Arc<dyn Engine>,
        id: SequenceId,
        request: Request,
        format: Format,
        heard: &mut dyn FnMut(Event),
    ) -> Result<(Self, Taken), ModelError> {
        let Request { start, stop } = request;
        let room = stop.max_new_tokens;
        let (state, first) = match start {
            Start::Prompt { tokens, compress } => {
                let observed = compress.as_ref().map_or(ObservationRequest::default(), |(method, _)| method.observations());
                let of = tokens.len();
                let prompt = Box::new(Prefilling::new(engine, tokens, format, observed)?);
                (State::Prefilling { prompt, of, compress }, None)
            }
            Start::Cache { mut cache, first } => {
                cache.reserve(room)?;
                (State::Decoding { cache, prompt: None }, Some(first))
            }
            Start::Then { mut cache, tokens } => {
                cache.reserve(tokens.len() + room)?;
                (State::Feeding { cache, tokens, fed: 0 }, None)
            }
        };
        let mut sequence = Self { id, stop, answer: Vec::new(), state, promise: Promise::default() };
        let taken = first.map_or(Taken::GoesOn, |first| sequence.choose(&first, heard));
        Ok((sequence, taken))
    }

    pub fn id(&self) -> SequenceId {
        self.id
    }

    pub fn is_decoding(&self) -> bool {
        matches!(self.state, State::Decoding { .. })
    }

    /// Takes the promise of the bytes that it will need.
    pub fn promise(&mut self, promise: Promise) {
        self.promise = promise;
    }

    /// Bytes of its buffers.
    fn bytes(&self) -> usize {
        match &self.state {
            State::Prefilling { prompt, .. } => prompt.bytes(),
            State::Feeding { cache, .. } => cache.own_bytes(),
            State::Decoding { cache, prompt } => cache.own_bytes() + prompt.as_ref().map_or(0, |prompt| prompt.bytes()),
        }
    }

    /// Writes down what it holds; from its first token on it holds all that it will need.
    pub fn account(&mut self, ledger: &mut Ledger) {
        let bytes = self.bytes() as u64;
        ledger.hold(&mut self.promise, bytes);
        if self.is_decoding() {
            ledger.lower(&mut self.promise, bytes);
        }
    }

    /// Its next tokens: one of an answer, or at most `chunk` of what comes before.
    pub fn row(&mut self, chunk: usize) -> Row<'_> {
        match &mut self.state {
            State::Prefilling { prompt, .. } => prompt.row(chunk),
            State::Feeding { cache, tokens, fed } => {
                let end = tokens.len().min(*fed + chunk);
                let ask = if end == tokens.len() { self.stop.ask(0) } else { Ask::Nothing };
                Row::new(&tokens[*fed..end], cache, ask)
            }
            State::Decoding { cache, .. } => {
                // There is one: whoever has no first token has not begun to decode.
                let last = self.answer.last().map_or(&[][..], std::slice::from_ref);
                Row::new(last, cache, self.stop.ask(self.answer.len()))
            }
        }
    }

    /// Takes the answer to its row.
    pub fn take(&mut self, answer: Answer, heard: &mut dyn FnMut(Event)) -> Taken {
        match self.advance(answer, heard) {
            Ok(Some(top)) => self.choose(&top, heard),
            Ok(None) => Taken::GoesOn,
            Err(error) => Taken::Over(Err(error)),
        }
    }

    /// What to choose the next token from, if it is time to.
    fn advance(&mut self, answer: Answer, heard: &mut dyn FnMut(Event)) -> Result<Option<Top>, ModelError> {
        match &mut self.state {
            State::Decoding { .. } => answer.top(|| "while decoding".into()).map(Some),
            State::Feeding { cache, tokens, fed } => {
                let (seen, of) = (cache.next_position(), tokens.len());
                *fed = of - (of - *fed).min(of - *fed);
                let _ = seen;
                Ok(None)
            }
            State::Prefilling { .. } => Ok(None),
        }
    }
}
