//! Heads that look at one thing at a time: how much of its attention a head gives to the token that it attends to most.

use cokv_core::{Evidence, GameError, HeadEstimate, ImportanceEstimator, Study, Told};
use serde::{Deserialize, Serialize};

/// Mean over all tokens of the model's answers of the largest attention that a query head gives to one token of the past.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SharpHeads {
    /// Tokens at the start of the prompt that do not count, since they draw attention whatever they say.
    pub sinks: usize,
}

impl Default for SharpHeads {
    fn default() -> Self {
        Self { sinks: 4 }
    }
}

impl ImportanceEstimator for SharpHeads {
    fn evidence(&self) -> Evidence {
        Evidence::Answers
    }

    fn estimate(&self, study: &mut dyn Study) -> Result<Option<HeadEstimate>, GameError> {
        let (layout, records) = (study.subject().layout, study.subject().records);
        let mut values = vec![0.0; layout.layers * layout.query_heads];
        let mut tokens = 0;
        for record in 0..records {
            let said = study.answer(record)?.said;
            tokens += said.len();
            let mut heads = values.iter_mut();
            study.attention(record, &said, &mut |layer| {
                for (query_head, value) in (0..layout.query_heads).zip(&mut heads) {
                    let rows = layer.last_rows(query_head, said.len())?.chunks_exact(layer.prompt_len);
                    *value += rows.map(|row| largest(&row[self.sinks.min(row.len())..])).sum::<f64>();
                }
                Ok(())
            })?;
            if study.tell(&Told::Looked { records: record + 1, of: records }).is_break() {
                return Ok(None);
            }
        }
        values.iter_mut().for_each(|value| *value /= tokens.max(1) as f64);
        let summary = format!("{tokens} tokens of {records} answers");
        Ok(Some(HeadEstimate { values, summary, samples: Some(tokens as u64), ..HeadEstimate::default() }))
    }
}

fn largest(row: &[f32]) -> f64 {
    f64::from(row.iter().fold(0.0, |most, &attention| attention.max(most)))
}
