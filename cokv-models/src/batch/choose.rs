//! What draws the next token of an answer.

use crate::ask::{Answer, Ask, Top};
use crate::error::ModelError;
use crate::sampling::{Constraint, End, Mask, Sampler, Sampling, TokenLogprobs};
use crate::stop::StopRule;

/// What draws the tokens of one answer.
pub(super) enum Choose {
    /// The likeliest.
    Greedy,
    /// Of all.
    Sample(Box<Sampler>),
    /// Of those that may come.
    Constrained(Box<Sampler>, Box<dyn Constraint>),
}

/// What the next token is drawn from.
#[derive(Clone)]
pub(super) enum Next {
    Top(Top),
    Logits(Vec<f32>),
}

impl Choose {
    pub fn of(sampler: Sampler, constraint: Option<Box<dyn Constraint>>) -> Self {
        match constraint {
            Some(constraint) => Self::Constrained(Box::new(sampler), constraint),
            None if sampler.sampling().is_greedy_alone() => Self::Greedy,
            None => Self::Sample(Box::new(sampler)),
        }
    }

    /// The likeliest of what may come.
    pub fn likeliest(constraint: Option<Box<dyn Constraint>>) -> Self {
        Self::of(Sampler::new(Sampling::greedy(), 0, &[]), constraint)
    }

    /// What has to be known to draw the next token.
    pub fn ask(&self, stop: &StopRule, generated: usize) -> Ask<'static> {
        match self {
            Self::Greedy => stop.ask(generated),
            Self::Sample(_) | Self::Constrained(..) => Ask::Logits,
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
            (Self::Constrained(sampler, constraint), Next::Logits(logits)) => {
                let mut allowed = constraint.mask()?;
                let may_end = constraint.end()? != End::Not;
                stop.tokens.iter().for_each(|&token| set(&mut allowed, token, false));
                // What cannot go on ends, however long it was to be.
                let goes_on = allowed.iter().any(|&word| word != 0);
                stop.tokens.iter().for_each(|&token| set(&mut allowed, token, may_end));
                let barred = if goes_on { stop.barred(generated) } else { &[] };
                let chosen = sampler.choose(logits.clone(), barred, Some(Mask(&allowed)))?;
                if !stop.tokens.contains(&chosen.token) {
                    constraint.push(chosen.token)?;
                }
                Ok((chosen.token, chosen.logprobs))
            }
            (Self::Sample(_) | Self::Constrained(..), Next::Top(_)) => {
                Err(ModelError::Backend("a token was to be drawn of all logits, and there are some".into()))
            }
        }
    }

    /// Whether no token may follow: the answer ends, however long it was to be.
    pub fn is_over(&mut self) -> Result<bool, ModelError> {
        match self {
            Self::Greedy | Self::Sample(_) => Ok(false),
            Self::Constrained(_, constraint) => Ok(constraint.end()? == End::Must),
        }
    }
}

/// Writes a token's bit into words as of [`Mask`].
fn set(words: &mut Vec<u32>, token: u32, allowed: bool) {
    let (word, bit) = (token as usize / 32, 1 << (token % 32));
    match words.get_mut(word) {
        Some(bits) if allowed => *bits |= bit,
        Some(bits) => *bits &= !bit,
        None if allowed => {
            words.resize(word + 1, 0);
            words[word] = bit;
        }
        None => {}
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
