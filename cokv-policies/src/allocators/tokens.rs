//! Budgets that follow the prompt's own token scores: the best tokens of many heads compete for one pool.

use std::ops::Range;

use cokv_core::{AllocationRequest, PolicyError};
use serde::{Deserialize, Serialize};

use crate::apportion::greedy;
use crate::evenness::evenness;

/// Who complains: an allocator does not know the name of the method that it is part of.
const ALLOCATOR: &str = "(its allocator)";

/// How scores of different heads are made comparable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalise {
    /// They are compared as they are (Ada-KV's default, CoKV's baseline).
    #[default]
    None,
    /// Each score times the share of its head's mass that the head's own best tokens hold, as many as an even share
    /// gives it (HeadKV, KVCache-Factory). A larger total changes the factors and may take a token from a head.
    TopMass,
    /// Each head's scores add up to 1.
    Sum,
}

/// What the tokens of some heads are worth, best first, protected tokens left out.
pub struct Candidates {
    /// One list per head; all have the same length.
    scores: Vec<Vec<f64>>,
}

impl Candidates {
    /// Of the heads with these flat indices.
    ///
    /// # Errors
    /// [`PolicyError::WrongLength`] where not all heads are scored, [`PolicyError::NotFinite`] where one is not with a
    /// number.
    pub fn of(request: &AllocationRequest<'_>, heads: Range<usize>) -> Result<Self, PolicyError> {
        let (scores, prompt_len) = (request.token_scores, request.prompt_len);
        let expected = request.layout.heads();
        if prompt_len > 0 && (scores.heads(), scores.prompt_len()) != (expected, prompt_len) {
            return Err(PolicyError::WrongLength {
                method: ALLOCATOR.into(),
                what: "the scored KV heads",
                found: scores.heads(),
                expected,
            });
        }
        let candidates = request.protected.candidates(prompt_len);
        let best_first = |head: usize| {
            let mut scores = scores.head(head)[candidates.clone()].to_vec();
            if let Some(at) = scores.iter().position(|score| !score.is_finite()) {
                return Err(PolicyError::NotFinite {
                    method: ALLOCATOR.into(),
                    layer: head / request.layout.kv_heads,
                    kv_head: head % request.layout.kv_heads,
                    token: candidates.start + at,
                    value: scores[at],
                });
            }
            scores.sort_unstable_by(|a, b| b.total_cmp(a));
            Ok(scores.into_iter().map(f64::from).collect())
        };
        Ok(Self { scores: heads.map(best_first).collect::<Result<_, _>>()? })
    }

    /// Makes the heads comparable; `base` is what an even share gives each. Scores below zero have no mass: where it
    /// counts, a head's scores are first lifted until none is.
    pub fn normalise(mut self, normalise: Normalise, base: usize) -> Self {
        if normalise == Normalise::None {
            return self;
        }
        for scores in &mut self.scores {
            let lowest = scores.last().copied().unwrap_or(0.0).min(0.0);
            scores.iter_mut().for_each(|score| *score -= lowest);
            let mass: f64 = scores.iter().sum();
            let counted = if normalise == Normalise::Sum { 1.0 } else { scores.iter().take(base).sum() };
            if mass > 0.0 {
                scores.iter_mut().for_each(|score| *score *= counted / mass);
            }
        }
        self
    }

    /// Multiplies each head's scores by its weight, at least 0. Where some are below zero, all are lifted alike first: a
    /// larger weight must not make a token worse.
    pub fn weighted(mut self, weights: &[f64]) -> Self {
        let lowest = self.lowest();
        for (scores, weight) in self.scores.iter_mut().zip(weights) {
            scores.iter_mut().for_each(|score| *score = (*score - lowest) * weight);
        }
        self
    }

    /// The best of each head, so many at most.
    pub fn at_most(mut self, most: usize) -> Self {
        self.scores.iter_mut().for_each(|scores| scores.truncate(most));
        self
    }

    /// How evenly worth lies on all these tokens: 0 where one has all, 1 where all are worth the same. Where some are
    /// below zero, all are lifted alike first.
    pub fn evenness(&self) -> f64 {
        let lowest = self.lowest();
        // In the order of their worth, so that it does not matter which head comes first.
        let mut all: Vec<f64> = self.scores.iter().flatten().map(|score| score - lowest).collect();
        all.sort_unstable_by(f64::total_cmp);
        evenness(all.into_iter()).unwrap_or(1.0)
    }

    /// The lowest of all scores, at most 0.
    fn lowest(&self) -> f64 {
        self.scores.iter().filter_map(|scores| scores.last()).copied().fold(0.0, f64::min)
    }

    /// Each head's scores, best first.
    pub fn scores(&self) -> &[Vec<f64>] {
        &self.scores
    }

    /// How many of the best `total` tokens belong to each head, when each has at least its floor.
    pub fn best(&self, total: usize, floors: &[usize]) -> Vec<usize> {
        let caps: Vec<usize> = self.scores.iter().map(Vec::len).collect();
        let floors: Vec<usize> = floors.iter().zip(&caps).map(|(&floor, &cap)| floor.min(cap)).collect();
        greedy(total, &floors, &caps, |head, count| self.scores[head][count])
    }
}
