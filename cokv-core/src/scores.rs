//! What heads and tokens are worth.

use thiserror::Error;

use crate::{Frame, HeadLayout, PolicyError};

/// Scores whose number does not fit the heads they are for.
#[derive(Debug, Error, PartialEq)]
pub enum ScoresError {
    /// A score for every head is needed, no more and no fewer.
    #[error("{found} head scores were given for a model of {expected} heads")]
    WrongLength {
        /// Scores given.
        found: usize,
        /// Heads of the model.
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
    layers: usize,
    kv_heads: usize,
    values: Vec<f64>,
    query_heads: Option<Vec<f64>>,
}

impl HeadScores {
    /// One finite score per KV head, in flat order.
    pub fn new(layout: HeadLayout, values: Vec<f64>) -> Result<Self, ScoresError> {
        let values = checked(values, layout.heads())?;
        Ok(Self { layers: layout.layers, kv_heads: layout.kv_heads, values, query_heads: None })
    }

    /// One finite score per query head: `[layers, query_heads]`, row-major. A KV head is worth the mean of its group.
    pub fn per_query_head(layout: HeadLayout, values: Vec<f64>) -> Result<Self, ScoresError> {
        let query_heads = checked(values, layout.layers * layout.query_heads)?;
        let group = layout.group();
        // Divided first: the sum of two large scores may not be finite.
        let mean = |group_scores: &[f64]| group_scores.iter().map(|score| score / group as f64).sum();
        let kv_heads = query_heads.chunks_exact(group).map(mean).collect();
        Ok(Self { query_heads: Some(query_heads), ..Self::new(layout, kv_heads)? })
    }

    /// The scores of the KV heads in flat order.
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The scores of the query heads, `[layers, query_heads]`, where they were found one by one.
    pub fn query_heads(&self) -> Option<&[f64]> {
        self.query_heads.as_deref()
    }

    /// Checks that the scores were found on a model of this shape.
    pub fn check_model(&self, layout: HeadLayout) -> Result<(), PolicyError> {
        let (scores, model) = ((self.layers, self.kv_heads), (layout.layers, layout.kv_heads));
        match scores == model {
            true => Ok(()),
            false => Err(PolicyError::OtherModel { scores, model }),
        }
    }
}

fn checked(values: Vec<f64>, expected: usize) -> Result<Vec<f64>, ScoresError> {
    if values.len() != expected {
        return Err(ScoresError::WrongLength { found: values.len(), expected });
    }
    match values.iter().position(|value| !value.is_finite()) {
        Some(head) => Err(ScoresError::NotFinite { head, value: values[head] }),
        None => Ok(values),
    }
}

/// What each prompt token is worth to each KV head: `[layers, kv_heads, prompt_len]`, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenScores {
    prompt_len: usize,
    frame: Frame,
    values: Vec<f32>,
    /// `[layers]`, or none.
    preferences: Vec<f64>,
}

impl TokenScores {
    /// No layer scored yet; room for all of them.
    pub fn with_capacity(layout: HeadLayout, prompt_len: usize) -> Self {
        let values = Vec::with_capacity(layout.heads() * prompt_len);
        Self { prompt_len, frame: Frame::default(), values, preferences: Vec::new() }
    }

    /// Of a prompt of these parts.
    pub fn within(self, frame: Frame) -> Self {
        Self { frame, ..self }
    }

    /// Appends the next layer's scores, `[kv_heads, prompt_len]`.
    pub fn push_layer(&mut self, scores: &[f32]) {
        self.values.extend_from_slice(scores);
    }

    /// Appends how much the next layer needs, where the compressor [says so](crate::CacheCompressor::prefers_layers).
    pub fn push_preference(&mut self, preference: f64) {
        self.preferences.push(preference);
    }

    /// How much each layer needs, `[layers]`; empty where the compressor does not say.
    pub fn layer_preferences(&self) -> &[f64] {
        &self.preferences
    }

    /// Prompt tokens.
    pub fn prompt_len(&self) -> usize {
        self.prompt_len
    }

    /// The parts of the prompt.
    pub fn frame(&self) -> Frame {
        self.frame
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
    fn a_kv_head_is_worth_the_mean_of_its_query_heads() {
        let layout = HeadLayout::new(1, 4, 2, 4).unwrap();
        let scores = HeadScores::per_query_head(layout, vec![1.0, 3.0, 0.0, 5.0]).unwrap();
        assert_eq!(scores.values(), [2.0, 2.5]);
        assert_eq!(scores.query_heads(), Some(&[1.0, 3.0, 0.0, 5.0][..]));
        assert!(HeadScores::per_query_head(layout, vec![f64::MAX; 4]).is_ok());
    }

    #[test]
    fn scores_of_another_model_name_both_shapes() {
        let scores = HeadScores::new(HeadLayout::new(2, 3, 3, 4).unwrap(), vec![0.0; 6]).unwrap();
        let error = scores.check_model(HeadLayout::new(3, 2, 2, 4).unwrap()).unwrap_err();
        assert!(error.to_string().contains("2 layers of 3 KV heads, the model has 3 layers of 2"), "{error}");
    }

    #[test]
    fn token_scores_are_read_head_by_head() {
        let layout = HeadLayout::new(2, 1, 1, 4).unwrap();
        let mut scores = TokenScores::with_capacity(layout, 3);
        scores.push_layer(&[1.0, 2.0, 3.0]);
        scores.push_layer(&[4.0, 5.0, 6.0]);
        assert_eq!(scores.heads(), 2);
        assert_eq!(scores.head(1), [4.0, 5.0, 6.0]);
        assert_eq!(scores.layer_preferences(), [0.0; 0], "nobody said anything");
        scores.push_preference(0.5);
        assert_eq!(scores.layer_preferences(), [0.5]);
    }
}
