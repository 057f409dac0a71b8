//! What a row of a pass wants to know of its logits, which stay where they were computed.

use std::any::Any;
use std::fmt::Debug;

use crate::error::ModelError;

/// What a row wants to know of the distributions behind its tokens.
#[derive(Clone, Copy, Default)]
pub enum Ask<'a> {
    /// Nothing: more tokens follow.
    #[default]
    Nothing,
    /// The likeliest tokens after the last.
    Top {
        /// How many.
        count: usize,
        /// Whether their probabilities are wanted, too.
        log_sum_exp: bool,
    },
    /// All logits after the last token.
    Logits,
    /// How the distributions after the row's tokens fit what follows.
    Along {
        /// First tokens of the row after which nobody looks.
        skip: usize,
        /// What follows each of the others, in their order; the last may be followed by nothing.
        targets: &'a [u32],
        /// Whose distributions the row's are compared with.
        against: Against<'a>,
        /// Whether the row's own distributions are kept for others to be compared with.
        keep: bool,
    },
}

/// Whose distributions a divergence is taken from.
#[derive(Clone, Copy, Default)]
pub enum Against<'a> {
    /// No divergence.
    #[default]
    Nobody,
    /// Those of an earlier row of the same pass, which keeps them.
    Row(usize),
    /// Those that an earlier pass kept.
    Kept(&'a Distributions),
}

impl Against<'_> {
    /// The distributions, where `answers` are those of the rows before.
    ///
    /// # Errors
    /// Where the other row keeps none, or its numbers are no numbers.
    pub fn distributions<'b>(&'b self, answers: &'b [Answer]) -> Result<Option<&'b Distributions>, ModelError> {
        match *self {
            Against::Nobody => Ok(None),
            Against::Kept(distributions) => Ok(Some(distributions)),
            Against::Row(row) => match answers.get(row) {
                Some(Answer::Along(Along { kept: Some(kept), .. })) => Ok(Some(kept)),
                Some(Answer::NotFinite) => {
                    Err(ModelError::NotFinite { place: "in the row that others are compared with".into() })
                }
                _ => Err(ModelError::Backend("a row is compared with one that keeps no distributions".into())),
            },
        }
    }
}

impl Ask<'_> {
    /// Of a row's tokens, how many at its end are followed by logits that somebody looks at.
    pub fn looks_at(&self, tokens: usize) -> usize {
        match *self {
            Ask::Nothing => 0,
            Ask::Top { .. } | Ask::Logits => 1,
            Ask::Along { skip, .. } => tokens.saturating_sub(skip),
        }
    }
}

/// What a row is told.
#[derive(Debug)]
pub enum Answer {
    /// It asked for nothing.
    Nothing,
    /// To [`Ask::Top`].
    Top(Top),
    /// To [`Ask::Logits`]: `[vocabulary]`.
    Logits(Vec<f32>),
    /// To [`Ask::Along`].
    Along(Along),
    /// Its numbers are no numbers, whatever it asked. Other rows of the pass are not concerned.
    NotFinite,
}

/// The likeliest next tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Top {
    /// With their logits, best first; the lowest id first among equals.
    pub tokens: Vec<(u32, f32)>,
    /// Logarithm of the sum of the exponentials of all logits, if it was asked for.
    pub log_sum_exp: Option<f64>,
}

/// How a row's distributions fit what follows.
#[derive(Debug, Default)]
pub struct Along {
    /// Log-likelihood of every target, in nats.
    pub log_likelihoods: Vec<f64>,
    /// Divergence of the other row's distributions from this row's at every place, in nats; empty where there is no other.
    pub divergences: Vec<f64>,
    /// The row's distributions, if they were to be kept.
    pub kept: Option<Distributions>,
}

/// Distributions of a row, where they were computed.
#[derive(Debug)]
pub struct Distributions(Box<dyn Logits>);

/// Logits as a backend holds them.
pub trait Logits: Any + Debug + Send + Sync {
    /// On the host, `[places, vocabulary]`.
    fn read(&self) -> Result<Vec<f32>, ModelError>;
}

impl Logits for Vec<f32> {
    fn read(&self) -> Result<Vec<f32>, ModelError> {
        Ok(self.clone())
    }
}

impl Distributions {
    /// Of logits that a backend keeps.
    pub fn new(logits: impl Logits) -> Self {
        Self(Box::new(logits))
    }

    /// The logits as the backend holds them; none where they are another backend's.
    pub fn held_as<L: Logits>(&self) -> Option<&L> {
        (self.0.as_ref() as &dyn Any).downcast_ref()
    }

    /// Logits on the host, `[places, vocabulary]`: for tests and tools.
    pub fn read(&self) -> Result<Vec<f32>, ModelError> {
        self.0.read()
    }
}

impl Top {
    /// Of logits on the host, `[vocabulary]`.
    pub fn of(logits: &[f32], count: usize) -> Self {
        Self { tokens: likeliest(logits, count), log_sum_exp: None }
    }
}

/// Ids and logits, best first; the lowest id first among equals.
pub(crate) fn likeliest(logits: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(count + 1);
    for (token, &logit) in logits.iter().enumerate() {
        if best.len() == count && best.last().is_none_or(|&(_, least)| logit <= least) {
            continue;
        }
        let place = best.partition_point(|&(_, other)| other >= logit);
        best.insert(place, (token as u32, logit));
        best.truncate(count);
    }
    best
}

impl Answer {
    /// The answer to [`Ask::Top`]; `place` is for the error where the row is not finite.
    pub fn top(self, place: impl FnOnce() -> String) -> Result<Top, ModelError> {
        match self {
            Answer::Top(top) => Ok(top),
            other => Err(other.unexpected(place)),
        }
    }

    /// The answer to [`Ask::Logits`], `[vocabulary]`.
    pub fn logits(self, place: impl FnOnce() -> String) -> Result<Vec<f32>, ModelError> {
        match self {
            Answer::Logits(logits) => Ok(logits),
            other => Err(other.unexpected(place)),
        }
    }

    /// The answer to [`Ask::Along`].
    pub fn along(self, place: impl FnOnce() -> String) -> Result<Along, ModelError> {
        match self {
            Answer::Along(along) => Ok(along),
            other => Err(other.unexpected(place)),
        }
    }

    fn unexpected(self, place: impl FnOnce() -> String) -> ModelError {
        match self {
            Answer::NotFinite => ModelError::NotFinite { place: place() },
            other => ModelError::Backend(format!("a row was told {other:?} {}, which it had not asked", place())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_id() {
        assert_eq!(likeliest(&[0.0, 3.0, 5.0, 3.0, 3.0], 3), [(2, 5.0), (1, 3.0), (3, 3.0)]);
        assert_eq!(likeliest(&[1.0, 2.0], 9), [(1, 2.0), (0, 1.0)]);
        assert_eq!(likeliest(&[1.0], 0), []);
    }
}
