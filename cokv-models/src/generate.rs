//! Decoding: many caches at once, each row with its own.

use std::ops::ControlFlow;

use candle_core::Tensor;

use crate::LanguageModel;
use crate::cache::RaggedCache;
use crate::decoder::Row;
use crate::error::ModelError;

/// Tokens of one forward pass of teacher forcing, over all rows.
const TOKENS_PER_PASS: usize = 1024;
/// Logits that are held at once: logits of all rows together would outgrow the caches.
const LOGITS_AT_ONCE: usize = 1 << 23;

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
    /// Greedy answers of all rows, decoded as one batch that finished rows leave. `first_logits` are those of the first
    /// token: `[vocabulary]` from a prefill that all rows share, or `[rows, vocabulary]`. `heard` is told every token,
    /// with its row, as it comes, and may end it all.
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
        let first_logits = first_logits.chunks_exact(self.config().vocabulary).cycle();
        for ((row, answer), first_logits) in answers.iter_mut().enumerate().zip(first_logits) {
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

    /// Feeds the same tokens to every cache and lends `work` each row's logits after each of them but the first `skip`,
    /// `[tokens - skip, vocabulary]`. The caches are as before afterwards.
    pub fn continue_with(
        &self,
        caches: &mut [RaggedCache],
        tokens: &[u32],
        skip: usize,
        mut work: impl FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        if tokens.len() <= skip {
            return Ok(());
        }
        let (hidden_size, vocabulary) = (self.config().hidden_size, self.config().vocabulary);
        let wanted = tokens.len() - skip;
        let rows_of_logits = (LOGITS_AT_ONCE / (wanted * vocabulary)).max(1);
        for (pass, caches) in caches.chunks_mut(rows_per_pass(tokens)).enumerate() {
            let hidden = self.feed(caches, tokens)?.reshape((caches.len(), tokens.len(), hidden_size))?;
            caches.iter_mut().for_each(|cache| cache.rewind(tokens.len()));
            let hidden = hidden.narrow(1, skip, wanted)?;
            for first in (0..caches.len()).step_by(rows_of_logits) {
                let count = rows_of_logits.min(caches.len() - first);
                let hidden = hidden.narrow(0, first, count)?.contiguous()?.reshape((count * wanted, hidden_size))?;
                let logits = self.decoder().finite_logits(&hidden, || "along the reference answer".into())?;
                for (row, logits) in logits.chunks_exact(wanted * vocabulary).enumerate() {
                    work(pass * rows_per_pass(tokens) + first + row, logits);
                }
            }
        }
        Ok(())
    }

    /// Feeds the same tokens to every cache, for good, and returns the logits after the last: `[rows, vocabulary]`.
    pub fn extend(&self, caches: &mut [RaggedCache], tokens: &[u32]) -> Result<Vec<f32>, ModelError> {
        let mut logits = Vec::with_capacity(caches.len() * self.config().vocabulary);
        for caches in caches.chunks_mut(rows_per_pass(tokens)) {
            let hidden = self.feed(caches, tokens)?;
            let last: Vec<u32> = (1..=caches.len()).map(|row| (row * tokens.len() - 1) as u32).collect();
            let last = hidden.index_select(&Tensor::new(last, hidden.device())?, 0)?;
            logits.extend(self.decoder().finite_logits(&last, || "after the end of the prompt".into())?);
        }
        Ok(logits)
    }

    fn feed(&self, caches: &mut [RaggedCache], tokens: &[u32]) -> Result<Tensor, ModelError> {
        caches.iter_mut().for_each(|cache| cache.reserve(tokens.len()));
        let mut rows: Vec<Row<'_>> = caches.iter_mut().map(|cache| Row { tokens, cache }).collect();
        self.decoder().forward(&mut rows, None)
    }
}

fn rows_per_pass(tokens: &[u32]) -> usize {
    (TOKENS_PER_PASS / tokens.len().max(1)).max(1)
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
