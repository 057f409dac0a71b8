//! What a coalition achieves on a record.

use std::fmt;

use cokv_core::GameError;

use super::record::{Forced, Prepared, generate};
use crate::cache::RaggedCache;
use crate::distribution::{divergence, log_sum_exp};
use crate::kernel::pool;
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
                let answers = generate(model, record, &record.stop, rows)?;
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
    mean_over_positions(model, record, rows, |_, next, logits| f64::from(logits[next as usize]) - log_sum_exp(logits))
}

fn agreements(model: &LanguageModel, record: &Prepared, rows: &mut [RaggedCache]) -> Result<Vec<f64>, ModelError> {
    let vocabulary = model.config().vocabulary;
    mean_over_positions(model, record, rows, |position, _, logits| {
        let full = &record.full_logits[position * vocabulary..(position + 1) * vocabulary];
        -divergence(full, logits, log_sum_exp(logits))
    })
}

/// Mean over the scored positions of what `value` makes of the place, the answer's token there and the logits before it,
/// for every row.
fn mean_over_positions(
    model: &LanguageModel,
    record: &Prepared,
    rows: &mut [RaggedCache],
    value: impl Fn(usize, u32, &[f32]) -> f64 + Sync,
) -> Result<Vec<f64>, ModelError> {
    let Forced { tokens, skip, targets } = record.forced();
    let answer = &record.answer[targets];
    let vocabulary = model.config().vocabulary;
    let mut means = vec![0.0; rows.len()];
    model.continue_with(rows, &tokens, skip, |row, logits| {
        let values = pool::map(answer.len(), |position| {
            value(position, answer[position], &logits[position * vocabulary..(position + 1) * vocabulary])
        });
        means[row] = values.iter().sum::<f64>() / answer.len() as f64;
    })?;
    Ok(means)
}
