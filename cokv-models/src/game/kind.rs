//! What is measured of a coalition.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a coalition's success on one record is measured. Only answer tokens that the coalition can influence count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UtilityKind {
    /// exp(mean log p) of the reference answer, teacher-forced: in [0, 1]. Predicts the ranking that exact match gives
    /// with a fraction of the evaluations.
    #[default]
    AnswerProbability,
    /// Mean log p of the reference answer in nats: the least noisy, but dominated by collapsed models.
    LogLikelihood,
    /// Minus the mean divergence from the full cache's distributions along its own greedy answer, in nats: needs no
    /// reference.
    Agreement,
    /// exp(-mean divergence) from the full cache's distributions along its own greedy answer: in [0, 1], and 1 for the full
    /// cache on every record. Is to agreement what answer probability is to log-likelihood, and needs no reference either.
    Retention,
    /// The task's metric of the greedy answer, as published. The game needs a scorer.
    Metric,
}

impl UtilityKind {
    /// Whether it compares with the full cache along its own answer, whatever the reference is.
    pub fn compares(self) -> bool {
        matches!(self, Self::Agreement | Self::Retention)
    }

    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerProbability => "answer-probability",
            Self::LogLikelihood => "log-likelihood",
            Self::Agreement => "agreement",
            Self::Retention => "retention",
            Self::Metric => "metric",
        }
    }
}

impl fmt::Display for UtilityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
