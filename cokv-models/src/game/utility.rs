//! What a coalition achieves on a record.

use std::fmt;

use cokv_core::GameError;

use super::record::{Prepared, generate};
use crate::cache::RaggedCache;
use crate::generate::ComparedWith;
use crate::{LanguageModel, ModelError};

/// Scores the generated answer of an instance.
pub type Scorer<'a> = Box<dyn Fn(usize, &[u32]) -> Result<f64, GameError> + 'a>;

/// How a coalition's success on one record is measured. Only answer tokens that the coalition can influence count.
#[derive(Default)]
pub enum Utility<'a> {
    /// exp(mean log p) of the reference answer, teacher-forced: in [0, 1]. Predicts the ranking that exact match gives
    /// with a fraction of the evaluations.
    #[default]
    AnswerProbability,
    /// Mean log p of the reference answer in nats: the least noisy, but dominated by collapsed models.
    LogLikelihood,
    /// Minus the mean divergence from the full cache's distributions along its own greedy answer, in nats: needs no
    /// reference.
    Agreement,
    /// The task's metric of the greedy answer, as published.
    Metric(Scorer<'a>),
}

impl Utility<'_> {
    /// The name in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Utility::AnswerProbability => "answer-probability",
            Utility::LogLikelihood => "log-likelihood",
            Utility::Agreement => "agreement",
            Utility::Metric(_) => "metric",
        }
    }

    pub(super) fn of(
        &self,
        model: &LanguageModel,
        record: &Prepared,
        instance: usize,
        rows: &mut [RaggedCache],
    ) -> Result<Vec<f64>, GameError> {
        match self {
            Utility::AnswerProbability => {
                Ok(mean_log_likelihoods(model, record, rows)?.into_iter().map(f64::exp).collect())
            }
            Utility::LogLikelihood => Ok(mean_log_likelihoods(model, record, rows)?),
            Utility::Agreement => Ok(agreements(model, record, rows)?),
            Utility::Metric(score) => {
                let answers = generate(model, &record.suffix, &record.first, &record.stop, rows)?;
                answers.iter().map(|answer| score(instance, answer)).collect()
            }
        }
    }
}

impl fmt::Debug for Utility<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn mean_log_likelihoods(
    model: &LanguageModel,
    record: &Prepared,
    rows: &mut [RaggedCache],
) -> Result<Vec<f64>, ModelError> {
    let rows = record.along(model, rows, ComparedWith::Nobody, false)?;
    Ok(rows.iter().map(|row| mean(&row.log_likelihoods)).collect())
}

fn agreements(model: &LanguageModel, record: &Prepared, rows: &mut [RaggedCache]) -> Result<Vec<f64>, ModelError> {
    let full = record.full.as_ref().map_or(ComparedWith::Nobody, ComparedWith::Kept);
    let rows = record.along(model, rows, full, false)?;
    Ok(rows.iter().map(|row| -mean(&row.divergences)).collect())
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}
