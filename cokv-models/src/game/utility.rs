//! What a coalition achieves on a record.

use cokv_core::GameError;

use super::record::{Prepared, generate};
use super::{HeadMaskError, UtilityKind};
use crate::cache::RaggedCache;
use crate::error::ModelError;
use crate::generate::ComparedWith;
use crate::model::LanguageModel;

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
        UtilityKind::Retention => Ok(agreements(model, record, rows)?.into_iter().map(f64::exp).collect()),
        UtilityKind::Metric => {
            let score = scorer.ok_or(HeadMaskError::NoScorer)?;
            let answers = generate(model, &record.suffix, &record.first, &record.stop, rows)?;
            answers.iter().map(|answer| score(instance, answer)).collect()
        }
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
