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
    /// The task's metric of the greedy answer, as published. The game needs a scorer.
    Metric,
}

impl UtilityKind {
    /// The name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnswerProbability => "answer-probability",
            Self::LogLikelihood => "log-likelihood",
            Self::Agreement => "agreement",
            Self::Metric => "metric",
        }
    }
}

impl fmt::Display for UtilityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
