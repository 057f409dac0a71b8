//! What heads and tokens are worth.

use thiserror::Error;

use crate::HeadLayout;

/// Scores whose number does not fit the heads they are for.
#[derive(Debug, Error, PartialEq)]
pub enum ScoresError {
    /// A score for every KV head is needed, no more and no fewer.
    #[error("{found} head scores were given for a model of {expected} KV heads")]
    WrongLength {
        /// Scores given.
        found: usize,
        /// KV heads of the model.
        expected: usize,
    },
    /// NaN or an infinity.
    #[error("the score of head {head} is {value}, which is not a finite number")]
    NotFinite {
        /// Flat index of the head.
        head: usize,
        /// Its score.
        value: f64,
    },
}

/// What each KV head is worth, found offline (Shapley values, retrieval scores): `[layers, kv_heads]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadScores {
    values: Vec<f64>,
}

impl HeadScores {
    /// One finite score per KV head, in flat order.
    pub fn new(layout: HeadLayout, values: Vec<f64>) -> Result<Self, ScoresError> {
        if values.len() != layout.heads() {
            return Err(ScoresError::WrongLength { found: values.len(), expected: layout.heads() });
        }
        match values.iter().position(|value| !value.is_finite()) {
            Some(head) => Err(ScoresError::NotFinite { head, value: values[head] }),
            None => Ok(Self { values }),
        }
    }

    /// The scores in flat order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }
}

/// What each prompt token is worth to each KV head: `[layers, kv_heads, prompt_len]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScores {
    prompt_len: usize,
    values: Vec<f32>,
}

impl TokenScores {
    /// No layer scored yet; room for all of them.
    pub fn with_capacity(layout: HeadLayout, prompt_len: usize) -> Self {
        Self { prompt_len, values: Vec::with_capacity(layout.heads() * prompt_len) }
    }

    /// Appends the next layer's scores, `[kv_heads, prompt_len]`.
    pub fn push_layer(&mut self, scores: &[f32]) {
        self.values.extend_from_slice(scores);
    }

    /// Prompt tokens.
    pub fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    /// Scores of one KV head by its flat index: `[prompt_len]`.
    pub fn head(&self, flat: usize) -> &[f32] {
        &self.values[flat * self.prompt_len..(flat + 1) * self.prompt_len]
    }

    /// KV heads scored so far.
    pub fn heads(&self) -> usize {
        self.values.len().checked_div(self.prompt_len).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_scores_must_fit_and_be_finite() {
        let layout = HeadLayout::new(1, 2, 2, 4).unwrap();
        assert_eq!(HeadScores::new(layout, vec![1.0]).unwrap_err(), ScoresError::WrongLength { found: 1, expected: 2 });
        assert!(matches!(
            HeadScores::new(layout, vec![1.0, f64::NAN]).unwrap_err(),
            ScoresError::NotFinite { head: 1, .. }
        ));
        assert_eq!(HeadScores::new(layout, vec![1.0, 2.0]).unwrap().values(), [1.0, 2.0]);
    }

    #[test]
    fn token_scores_are_read_head_by_head() {
        let layout = HeadLayout::new(2, 1, 1, 4).unwrap();
        let mut scores = TokenScores::with_capacity(layout, 3);
        scores.push_layer(&[1.0, 2.0, 3.0]);
        scores.push_layer(&[4.0, 5.0, 6.0]);
        assert_eq!(scores.heads(), 2);
        assert_eq!(scores.head(1), [4.0, 5.0, 6.0]);
    }
}
