//! What was said, and what that costs.

use std::collections::HashMap;

use super::Sampling;

/// Tokens of a prompt and of the answer so far.
pub(super) struct History {
    /// How often each distinct token stands in the answer; 0 for those of the prompt alone.
    counts: HashMap<u32, usize>,
    answered: usize,
}

impl History {
    pub(super) fn new(sampling: &Sampling, prompt: &[u32]) -> Self {
        // Nothing but this penalty looks at prompts, which may be long.
        let prompt = if sampling.repetition_penalty == 1.0 { &[] } else { prompt };
        Self { counts: prompt.iter().map(|&token| (token, 0)).collect(), answered: 0 }
    }

    /// Tokens of the answer.
    pub(super) fn answered(&self) -> usize {
        self.answered
    }

    pub(super) fn push(&mut self, token: u32) {
        *self.counts.entry(token).or_default() += 1;
        self.answered += 1;
    }

    /// The repetition penalty of CTRL (Keskar et al. 2019) on all tokens, then OpenAI's two on those of the answer.
    pub(super) fn penalise(&self, sampling: &Sampling, logits: &mut [f32]) {
        if !sampling.penalises() {
            return;
        }
        let repetition = sampling.repetition_penalty as f32;
        for (&token, &count) in &self.counts {
            let Some(logit) = logits.get_mut(token as usize) else { continue };
            let repeated = if *logit > 0.0 { *logit / repetition } else { *logit * repetition };
            let said = if count > 0 { sampling.presence_penalty } else { 0.0 };
            let penalty = sampling.frequency_penalty * count as f64 + said;
            // A penalty that overflows is the largest there is: what is infinite is barred, or no number.
            *logit = (repeated - penalty as f32).clamp(f32::MIN, f32::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn penalised(sampling: &Sampling) -> Vec<f32> {
        let mut history = History::new(sampling, &[0, 1, 1, 99]);
        for token in [1, 2, 2, 2] {
            history.push(token);
        }
        let mut logits = vec![2.0, -2.0, 4.0, 1.0];
        history.penalise(sampling, &mut logits);
        logits
    }

    #[test]
    fn repetition_is_of_prompt_and_answer_whatever_their_number() {
        let sampling = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        assert_eq!(penalised(&sampling), [1.0, -4.0, 2.0, 1.0]);
    }

    #[test]
    fn frequency_and_presence_are_of_the_answer() {
        let sampling = Sampling { frequency_penalty: 0.5, presence_penalty: 0.25, ..Sampling::default() };
        assert_eq!(penalised(&sampling), [2.0, -2.75, 2.25, 1.0]);
        let both = Sampling { repetition_penalty: 2.0, ..sampling };
        assert_eq!(penalised(&both), [1.0, -4.75, 0.25, 1.0], "what is repeated is divided first");
    }

    #[test]
    fn penalties_leave_numbers() {
        let sampling = Sampling { repetition_penalty: 1e-45, ..Sampling::default() };
        assert!(penalised(&sampling).iter().all(|logit| logit.is_finite()));
    }
}
