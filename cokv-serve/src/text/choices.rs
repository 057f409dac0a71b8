//! All answers of a request, from what the scheduler tells of them to what is said.

use std::sync::Arc;

use cokv_models::ModelError;
use cokv_models::batch::Why;
use cokv_models::sampling::TokenLogprobs;
use cokv_models::tokenizer::Tokenizer;

use super::answer::AnswerText;
use super::calls::{CallFinder, ParseCalls, is_begun};
use crate::api::answer::{Call, Piece, Reason};

/// Something that one answer says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Text, which is not empty, or tokens of it.
    Text(Piece),
    /// Calls of tools.
    Calls(Vec<Call>),
    /// Nothing more.
    End(Reason),
}

/// Answers of several jobs, each of which has as many.
pub struct Choices<'a> {
    answers: Vec<One<'a>>,
    of_each: usize,
}

struct One<'a> {
    text: AnswerText<'a>,
    calls: Option<CallFinder>,
    ended: bool,
}

impl<'a> Choices<'a> {
    /// Of so many jobs; `calls` finds calls of tools, where these are wanted.
    pub fn new(
        tokenizer: &'a Tokenizer,
        jobs: usize,
        of_each: usize,
        stops: &[String],
        calls: Option<&ParseCalls>,
    ) -> Self {
        let one = |_| One {
            text: AnswerText::new(tokenizer, stops.to_vec()),
            calls: calls.map(|parse| CallFinder::new(Arc::clone(parse))),
            ended: false,
        };
        Self { answers: (0..jobs * of_each).map(one).collect(), of_each }
    }

    /// Where an answer stands among all.
    pub fn index(&self, job: usize, choice: usize) -> usize {
        job * self.of_each + choice
    }

    /// Whether an answer has said all.
    pub fn has_ended(&self, index: usize) -> bool {
        self.answers.get(index).is_none_or(|one| one.ended)
    }

    /// Hears a token. Where the last thing that is said is the end, a stop string was found.
    pub fn token(
        &mut self,
        index: usize,
        token: u32,
        logprobs: Option<&TokenLogprobs>,
    ) -> Result<Vec<Said>, ModelError> {
        let Some(one) = self.answers.get_mut(index).filter(|one| !one.ended) else { return Ok(Vec::new()) };
        let (piece, stopped) = one.text.push(token, logprobs)?;
        let mut said = Vec::new();
        one.say(piece, &mut said);
        if stopped {
            one.end(Reason::Stop, &mut said);
        }
        Ok(said)
    }

    /// Hears that an answer is complete.
    pub fn ended(&mut self, index: usize, why: Why) -> Result<Vec<Said>, ModelError> {
        let Some(one) = self.answers.get_mut(index).filter(|one| !one.ended) else { return Ok(Vec::new()) };
        let mut said = Vec::new();
        let rest = one.text.finish()?;
        one.say(rest, &mut said);
        let reason = match why {
            Why::Stop => Reason::Stop,
            Why::Length => Reason::Length,
        };
        one.end(reason, &mut said);
        Ok(said)
    }
}

impl One<'_> {
    fn say(&mut self, piece: Piece, said: &mut Vec<Said>) {
        let piece = match &mut self.calls {
            Some(finder) => finder.push(piece),
            None => piece,
        };
        said.extend(some(piece));
    }

    fn end(&mut self, reason: Reason, said: &mut Vec<Said>) {
        self.ended = true;
        let (rest, calls) = self.calls.take().map(CallFinder::finish).unwrap_or_default();
        let is_cut = reason == Reason::Length && is_begun(&rest.text);
        said.extend(some(rest));
        if calls.is_empty() {
            said.push(Said::End(reason));
        } else {
            said.push(Said::Calls(calls));
            // Calls that were cut off are none, and others are calls all the same.
            said.push(Said::End(if is_cut { reason } else { Reason::ToolCalls }));
        }
    }
}

fn some(piece: Piece) -> Option<Said> {
    (piece != Piece::default()).then_some(Said::Text(piece))
}
