//! What a coalition achieves on a record.

use cokv_core::GameError;

use super::record::{Forced, Prepared, generate};
use super::{HeadMaskError, UtilityKind};
use crate::cache::RaggedCache;
use crate::distribution::{divergence, log_sum_exp};
use crate::kernel::pool;
use crate::{LanguageModel, ModelError};

/// Scores the generated answer of an instance.
pub type Scorer<'a> = Box<dyn Fn(usize, &[u32]) -> Result<f64, GameError> + 'a>;

/// What each coalition of `rows` achieves on a record.
pub(super) fn utilities(
    kind: UtilityKind,
    scorer: Option<&Scorer<'_>>,
    model: &LanguageModel,
    record: &Prepared,
    instance: usize,
    rows: &mut [RaggedCache],
) -> Result<Vec<f64>, GameError> {
    match kind {
        UtilityKind::AnswerProbability => {
            Ok(mean_log_likelihoods(model, record, rows)?.into_iter().map(f64::exp).collect())
        }
        UtilityKind::LogLikelihood => Ok(mean_log_likelihoods(model, record, rows)?),
        UtilityKind::Agreement => Ok(agreements(model, record, rows)?),
        UtilityKind::Metric => {
            let score = scorer.ok_or(HeadMaskError::NoScorer)?;
            let answers = generate(model, record, &record.stop, rows)?;
            answers.iter().map(|answer| score(instance, answer)).collect()
        }
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
