//! What draws the next token of an answer.

use crate::ask::{Answer, Ask, Top};
use crate::error::ModelError;
use crate::sampling::{Sampler, TokenLogprobs};
use crate::stop::StopRule;

/// What draws the tokens of one answer.
pub(super) enum Choose {
    /// The likeliest.
    Greedy,
    /// Of all.
    Sample(Box<Sampler>),
}

/// What the next token is drawn from.
#[derive(Clone)]
pub(super) enum Next {
    Top(Top),
    Logits(Vec<f32>),
}

impl Choose {
    pub fn of(sampler: Sampler) -> Self {
        if sampler.sampling().is_greedy_alone() { Self::Greedy } else { Self::Sample(Box::new(sampler)) }
    }

    /// What has to be known to draw the next token.
    pub fn ask(&self, stop: &StopRule, generated: usize) -> Ask<'static> {
        match self {
            Self::Greedy => stop.ask(generated),
            Self::Sample(_) => Ask::Logits,
        }
    }

    /// Draws it.
    pub fn draw(
        &mut self,
        next: &Next,
        stop: &StopRule,
        generated: usize,
    ) -> Result<(u32, Option<TokenLogprobs>), ModelError> {
        match (self, next) {
            (Self::Greedy, Next::Top(top)) => Ok((stop.choose(top, generated), None)),
            (Self::Greedy, Next::Logits(logits)) => Ok((stop.choose(&stop.top_of(logits), generated), None)),
            (Self::Sample(sampler), Next::Logits(logits)) => {
                let chosen = sampler.choose(logits.clone(), stop.barred(generated), None)?;
                Ok((chosen.token, chosen.logprobs))
            }
            (Self::Sample(_), Next::Top(_)) => {
                Err(ModelError::Backend("a token was to be drawn of all logits, and there are some".into()))
            }
        }
    }
}

impl Next {
    /// Of a row's answer.
    pub fn of(answer: Answer, place: impl FnOnce() -> String) -> Result<Self, ModelError> {
        match answer {
            Answer::Logits(logits) => Ok(Self::Logits(logits)),
            other => other.top(place).map(Self::Top),
        }
    }
}
