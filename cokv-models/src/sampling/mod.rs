//! Which token comes next, where it is not simply the likeliest: penalties, a bias, bars, a temperature, cuts and a seeded draw.
//!
//! Each [`Sampler`] is one answer. What it chooses is a function of its settings, its choice index, its prompt and the logits that
//! it was given, and of nothing else: no state of a generator is shared between answers, so that an answer is the same whatever
//! else is running, as long as its logits are.

mod constraint;
mod cuts;
mod draw;
mod history;
mod sampler;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::constraint::{Constraint, ConstraintError, End};
pub use self::draw::uniform;
pub use self::sampler::{Chosen, Mask, Sampler, TokenLogprobs};

/// Below this temperature the likeliest token is chosen.
const GREEDY_BELOW: f64 = 1e-5;
/// Alternatives that may be asked for.
const MOST_LOGPROBS: usize = 20;

/// How tokens are chosen. The names are those of OpenAI's API and, where that has none, of vLLM's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// What logits are divided by, 0 to 2. Below 1e-5 the likeliest token is chosen.
    pub temperature: f64,
    /// How many of the likeliest tokens are drawn from; 0 is all, 1 is the likeliest alone.
    pub top_k: usize,
    /// The likeliest tokens that together have this probability are drawn from, above 0 and up to 1.
    pub top_p: f64,
    /// Tokens less likely than this share of the likeliest one's probability are not drawn, 0 to 1.
    pub min_p: f64,
    /// What makes tokens of the prompt and the answer less likely (above 1) or more; above 0.
    pub repetition_penalty: f64,
    /// What a logit loses for each time that its token stands in the answer, -2 to 2.
    pub frequency_penalty: f64,
    /// What a logit loses if its token stands in the answer, -2 to 2.
    pub presence_penalty: f64,
    /// What is added to the logits of single tokens, -100 to 100.
    pub logit_bias: Vec<(u32, f32)>,
    /// What answers are drawn with: the same seed, the same answer.
    pub seed: u64,
    /// Whether log-probabilities are wanted: that of the chosen token, and those of so many of the likeliest, at most 20.
    pub top_logprobs: Option<usize>,
}

impl Default for Sampling {
    /// The model's own distribution, of seed 0.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
            top_logprobs: None,
        }
    }
}

impl Sampling {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Refuses what is out of range for a model of so many tokens.
    ///
    /// # Errors
    /// Names the first parameter that is.
    pub fn check(&self, vocabulary: usize) -> Result<(), SamplingError> {
        let within = |parameter, value: f64, least: f64, most: f64| match (least..=most).contains(&value) {
            true => Ok(()),
            false => Err(SamplingError::new(parameter, format!("{value} is not between {least} and {most}"))),
        };
        within("temperature", self.temperature, 0.0, 2.0)?;
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Err(SamplingError::new("top_p", format!("{} is not above 0 and up to 1", self.top_p)));
        }
        within("min_p", self.min_p, 0.0, 1.0)?;
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            let message = format!("{} is no number above 0", self.repetition_penalty);
            return Err(SamplingError::new("repetition_penalty", message));
        }
        within("frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        within("presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        for &(token, bias) in &self.logit_bias {
            within("logit_bias", bias.into(), -100.0, 100.0)?;
            if token as usize >= vocabulary {
                let message = format!("there is no token {token}: the model has {vocabulary}");
                return Err(SamplingError::new("logit_bias", message));
            }
        }
        if let Some(count) = self.top_logprobs.filter(|&count| count > MOST_LOGPROBS) {
            return Err(SamplingError::new("top_logprobs", format!("{count} are more than {MOST_LOGPROBS}")));
        }
        Ok(())
    }

    /// Whether the likeliest token is chosen, whatever the seed.
    pub fn is_greedy(&self) -> bool {
        self.temperature < GREEDY_BELOW || self.top_k == 1
    }

    /// Whether the likeliest token is all that has to be known, so that the other logits may stay where they were computed.
    pub fn is_greedy_alone(&self) -> bool {
        self.is_greedy() && !self.penalises() && self.logit_bias.is_empty() && self.top_logprobs.is_none()
    }

    fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.frequency_penalty != 0.0 || self.presence_penalty != 0.0
    }
}

/// A setting out of range.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{parameter}: {message}")]
pub struct SamplingError {
    /// Its name.
    pub parameter: &'static str,
    /// What it is, and what it may be.
    pub message: String,
}

impl SamplingError {
    fn new(parameter: &'static str, message: String) -> Self {
        Self { parameter, message }
    }
}

/// Everything is barred, or the logits are no numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no token may come next: all are barred, or their logits are not finite")]
pub struct NoTokenLeft;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let refused = |sampling: Sampling| sampling.check(10).map_err(|error| error.parameter).err();
        let base = Sampling::default;
        for temperature in [-0.1, 2.1, f64::NAN] {
            assert_eq!(refused(Sampling { temperature, ..base() }), Some("temperature"));
        }
        for top_p in [0.0, 1.1, f64::NAN] {
            assert_eq!(refused(Sampling { top_p, ..base() }), Some("top_p"));
        }
        assert_eq!(refused(Sampling { min_p: -0.1, ..base() }), Some("min_p"));
        for repetition_penalty in [0.0, -1.0, f64::INFINITY, f64::NAN] {
            assert_eq!(refused(Sampling { repetition_penalty, ..base() }), Some("repetition_penalty"));
        }
        assert_eq!(refused(Sampling { frequency_penalty: 2.5, ..base() }), Some("frequency_penalty"));
        assert_eq!(refused(Sampling { presence_penalty: -2.5, ..base() }), Some("presence_penalty"));
        for bias in [(10, 0.0), (0, 101.0), (0, f32::NAN)] {
            assert_eq!(refused(Sampling { logit_bias: vec![bias], ..base() }), Some("logit_bias"));
        }
        assert_eq!(refused(Sampling { top_logprobs: Some(21), ..base() }), Some("top_logprobs"));
        let all = Sampling {
            temperature: 2.0,
            top_p: 1e-9,
            min_p: 1.0,
            frequency_penalty: -2.0,
            logit_bias: vec![(9, -100.0)],
            top_logprobs: Some(20),
            ..base()
        };
        assert_eq!((refused(all), refused(Sampling::greedy())), (None, None));
        let error = Sampling { temperature: 3.0, ..base() }.check(10).unwrap_err();
        assert_eq!(error.to_string(), "temperature: 3 is not between 0 and 2");
    }

    #[test]
    fn greedy_alone_is_what_needs_no_other_logits() {
        let greedy = Sampling::greedy;
        assert!(greedy().is_greedy_alone() && Sampling { top_k: 1, ..Sampling::default() }.is_greedy_alone());
        assert!(!Sampling::default().is_greedy_alone());
        for sampling in [
            Sampling { repetition_penalty: 1.1, ..greedy() },
            Sampling { frequency_penalty: 0.1, ..greedy() },
            Sampling { presence_penalty: 0.1, ..greedy() },
            Sampling { logit_bias: vec![(0, 1.0)], ..greedy() },
            Sampling { top_logprobs: Some(0), ..greedy() },
        ] {
            assert!(sampling.is_greedy() && !sampling.is_greedy_alone(), "{sampling:?}");
        }
    }
}
