//! Decoding: many caches at once, each row with its own.

use std::ops::ControlFlow;

use crate::LanguageModel;
use crate::cache::RaggedCache;
use crate::decoder::Row;
use crate::error::ModelError;

/// Tokens of one forward pass of teacher forcing, over all rows.
const TOKENS_PER_PASS: usize = 1024;

/// When an answer ends.
#[derive(Clone, Debug)]
pub struct StopRule {
    /// Any of these ends the answer and is not part of it.
    pub tokens: Vec<u32>,
    /// Tokens of an answer at most.
    pub max_new_tokens: usize,
    /// Tokens of an answer at least: until then the stop tokens are not chosen.
    pub min_new_tokens: usize,
}

impl StopRule {
    /// The likeliest token that may come next; the lowest id among equals.
    fn choose(&self, logits: &[f32], generated: usize) -> u32 {
        let barred = |token: usize| generated < self.min_new_tokens && self.tokens.contains(&(token as u32));
        let mut best = (0, f32::NEG_INFINITY);
        for (token, &logit) in logits.iter().enumerate() {
            if logit > best.1 && !barred(token) {
                best = (token, logit);
            }
        }
        best.0 as u32
    }
}

impl LanguageModel {
    /// Greedy answers of all rows, decoded as one batch that finished rows leave. `first_logits` come from the prefill,
    /// the same for all rows; `heard` is told every token, with its row, as it comes, and may end it all.
    ///
    /// The caches have then seen all tokens of their answers but the last.
    pub fn greedy(
        &self,
        caches: &mut [RaggedCache],
        first_logits: &[f32],
        stop: &StopRule,
        mut heard: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let mut answers: Vec<Vec<u32>> = vec![Vec::new(); caches.len()];
        let mut given_up = false;
        let mut take = |answer: &mut Vec<u32>, row: usize, logits: &[f32]| {
            let token = stop.choose(logits, answer.len());
            if answer.len() >= stop.max_new_tokens || stop.tokens.contains(&token) {
                return false;
            }
            answer.push(token);
            given_up |= heard(row, token).is_break();
            answer.len() < stop.max_new_tokens && !given_up
        };
        let mut active: Vec<usize> = Vec::new();
        for (row, answer) in answers.iter_mut().enumerate() {
            if take(answer, row, first_logits) {
                active.push(row);
            }
        }
        while !active.is_empty() {
            let tokens: Vec<u32> = active.iter().filter_map(|&row| answers[row].last().copied()).collect();
            let mut rows: Vec<Row<'_>> = caches
                .iter_mut()
                .enumerate()
                .filter(|(row, _)| active.contains(row))
                .zip(&tokens)
                .map(|((_, cache), token)| Row { tokens: std::slice::from_ref(token), cache })
                .collect();
            let hidden = self.decoder().forward(&mut rows, None)?;
            let logits = self.decoder().finite_logits(&hidden, || "while decoding".into())?;
            let vocabulary = logits.len() / active.len();
            let mut index = 0;
            active.retain(|&row| {
                let logits = &logits[index * vocabulary..(index + 1) * vocabulary];
                index += 1;
                take(&mut answers[row], row, logits)
            });
        }
        Ok(answers)
    }

    /// Feeds the same tokens to every cache and lends `work` each row's logits after each of them,
    /// `[tokens, vocabulary]`. The caches are as before afterwards.
    pub fn continue_with(
        &self,
        caches: &mut [RaggedCache],
        tokens: &[u32],
        mut work: impl FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        if tokens.is_empty() {
            return Ok(());
        }
        let rows_per_pass = (TOKENS_PER_PASS / tokens.len()).max(1);
        for (pass, caches) in caches.chunks_mut(rows_per_pass).enumerate() {
            let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row { tokens, cache }).collect();
            let hidden = self.decoder().forward(&mut rows, None)?;
            caches.iter_mut().for_each(|cache| cache.rewind(tokens.len()));
            for index in 0..caches.len() {
                // Row by row: logits of all rows together would outgrow the caches.
                let row = hidden.narrow(0, index * tokens.len(), tokens.len())?;
                let logits = self.decoder().finite_logits(&row, || "along the reference answer".into())?;
                work(pass * rows_per_pass + index, &logits);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_go_to_the_lowest_id_and_early_stops_are_barred() {
        let stop = StopRule { tokens: vec![1], max_new_tokens: 9, min_new_tokens: 1 };
        assert_eq!(stop.choose(&[0.0, 5.0, 3.0, 3.0], 0), 2);
        assert_eq!(stop.choose(&[0.0, 5.0, 3.0, 3.0], 1), 1);
    }
}
