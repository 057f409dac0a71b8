//! What a game is played on.

use std::ops::ControlFlow;
use std::sync::Arc;

use cokv_core::ObservationRequest;
use thiserror::Error;

use super::{GameRules, UtilityKind};
use crate::ask::{Along, Distributions, Top};
use crate::cache::{RaggedCache, Segment};
use crate::error::ModelError;
use crate::generate::{ComparedWith, Forced};
use crate::model::LanguageModel;
use crate::prefill::Prefill;
use crate::stop::StopRule;

/// A prompt with its reference answer, tokenised.
#[derive(Clone, Debug)]
pub struct GameRecord {
    /// For messages.
    pub name: String,
    /// The whole prompt.
    pub prompt: Vec<u32>,
    /// The reference answer as it would follow the prompt; not looked at by `agreement`, `retention` and `metric`.
    pub answer: Vec<u32>,
    /// When a generated answer ends; looked at by `metric` only.
    pub stop: StopRule,
}

/// Why a record tells nothing about heads.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unplayable {
    /// Nothing to score.
    #[error("its reference answer is empty; `agreement` and `retention` need none")]
    EmptyAnswer,
    /// The only token comes from the prefill.
    #[error(
        "its answer is one token, which comes from the prefill and is the same for every coalition; set \
         holdout_suffix to at least 1, or take the utility `retention`, which looks at the model's own answer"
    )]
    OneToken,
    /// Masked heads would see everything.
    #[error("its prompt of {prompt} tokens is not longer than the window of {window} that every head sees")]
    ShortPrompt {
        /// Prompt tokens that are prefilled.
        prompt: usize,
        /// Tokens that every head sees.
        window: usize,
    },
}

impl GameRecord {
    /// Whether masking can change anything that the utility looks at.
    pub fn playable(&self, rules: &GameRules) -> Result<(), Unplayable> {
        let prompt = self.prompt.len().saturating_sub(rules.holdout_suffix);
        if prompt <= rules.window {
            return Err(Unplayable::ShortPrompt { prompt, window: rules.window });
        }
        let tokens = match rules.utility {
            UtilityKind::AnswerProbability | UtilityKind::LogLikelihood => self.answer.len(),
            UtilityKind::Agreement | UtilityKind::Retention => rules.agreement_tokens,
            UtilityKind::Metric => self.stop.max_new_tokens,
        };
        match tokens {
            0 => Err(Unplayable::EmptyAnswer),
            1 if rules.holdout_suffix == 0 => Err(Unplayable::OneToken),
            _ => Ok(()),
        }
    }
}

/// Bytes that the caches of this many prompt tokens take.
pub(super) fn cache_bytes(model: &LanguageModel, tokens: usize) -> u64 {
    let layout = model.config().layout;
    (tokens * layout.heads() * model.format().token_bytes(layout.head_dim)) as u64
}

/// A record whose prompt is in the cache.
pub(super) struct Prepared {
    pub prompt: Arc<Segment>,
    /// End of the prompt, processed by every coalition on its own.
    pub suffix: Vec<u32>,
    /// The likeliest tokens after what was prefilled.
    pub first: Top,
    /// What is teacher-forced: the reference answer, or the full cache's own.
    pub answer: Vec<u32>,
    /// Distributions of the full cache along its own answer; none unless the utility compares with it.
    pub full: Option<Distributions>,
    pub stop: StopRule,
}

impl Prepared {
    pub fn new(
        model: &LanguageModel,
        record: GameRecord,
        rules: &GameRules,
        progress: impl FnMut(usize),
    ) -> Result<Self, ModelError> {
        let GameRecord { mut prompt, answer, stop, .. } = record;
        let suffix = prompt.split_off(prompt.len().saturating_sub(rules.holdout_suffix));
        let prefill = model.prefill(&prompt, ObservationRequest::default(), progress)?;
        let mut prepared = Self {
            prompt: Arc::clone(prefill.prompt()),
            suffix,
            first: prefill.first(&stop),
            answer,
            full: None,
            stop,
        };
        if rules.utility.compares() {
            prepared.agree_with_itself(model, &prefill, rules)?;
        }
        Ok(prepared)
    }

    /// Tokens that every coalition processes before the first that it may influence, and those that are scored.
    pub fn along(
        &self,
        model: &LanguageModel,
        rows: &mut [RaggedCache],
        compared_with: ComparedWith<'_>,
        keep: bool,
    ) -> Result<Vec<Along>, ModelError> {
        let mut tokens = self.suffix.clone();
        tokens.extend(&self.answer[..self.answer.len().saturating_sub(1)]);
        let skip = self.suffix.len().saturating_sub(1);
        let first_scored = usize::from(self.suffix.is_empty());
        let targets = self.answer.get(first_scored..).unwrap_or_default();
        model.along(rows, Forced { tokens: &tokens, skip, targets }, compared_with, keep)
    }

    /// Tokens that a row appends to its cache at most.
    pub fn tokens_of_a_row(&self, rules: &GameRules) -> usize {
        self.suffix.len() + self.answer.len().max(self.stop.max_new_tokens).max(rules.agreement_tokens)
    }

    fn agree_with_itself(
        &mut self,
        model: &LanguageModel,
        prefill: &Prefill,
        rules: &GameRules,
    ) -> Result<(), ModelError> {
        // A token beyond its end would say nothing about how the model answers, but one after the first there must be.
        let stop = StopRule {
            tokens: model.stop_tokens().to_vec(),
            max_new_tokens: rules.agreement_tokens,
            min_new_tokens: 2.min(rules.agreement_tokens),
        };
        let mut full = [RaggedCache::full(&self.prompt)];
        self.answer = generate(model, &self.suffix, &prefill.first(&stop), &stop, &mut full)?.swap_remove(0);
        let mut full = [RaggedCache::full(&self.prompt)];
        self.full = self.along(model, &mut full, ComparedWith::Nobody, true)?.swap_remove(0).kept;
        Ok(())
    }
}

/// Greedy answers of all rows, after the end of the prompt that is not prefilled; `first` is what follows the rest.
pub(super) fn generate(
    model: &LanguageModel,
    suffix: &[u32],
    first: &Top,
    stop: &StopRule,
    rows: &mut [RaggedCache],
) -> Result<Vec<Vec<u32>>, ModelError> {
    let go_on = |_, _| ControlFlow::Continue(());
    match suffix.is_empty() {
        true => model.greedy(rows, std::slice::from_ref(first), stop, go_on),
        false => {
            let first = model.extend(rows, suffix, stop)?;
            model.greedy(rows, &first, stop, go_on)
        }
    }
}
