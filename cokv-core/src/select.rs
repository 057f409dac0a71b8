//! The last of the three steps: which tokens a head keeps, given how many and what they are worth.

use crate::{BudgetPlan, Protected, TokenScores};

/// What one KV head keeps of the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeadSelection {
    /// The whole prompt.
    Everything,
    /// These positions, ascending.
    Tokens(Vec<u32>),
}

impl HeadSelection {
    /// Tokens kept of a prompt of this length.
    pub fn len(&self, prompt_len: usize) -> usize {
        match self {
            HeadSelection::Everything => prompt_len,
            HeadSelection::Tokens(tokens) => tokens.len(),
        }
    }

    /// Positions kept of a prompt of this length, ascending.
    pub fn positions(&self, prompt_len: usize) -> Vec<usize> {
        match self {
            HeadSelection::Everything => (0..prompt_len).collect(),
            HeadSelection::Tokens(tokens) => tokens.iter().map(|&token| token as usize).collect(),
        }
    }
}

/// What every KV head keeps: `[layers, kv_heads]`, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// One entry per KV head, in flat order.
    pub heads: Vec<HeadSelection>,
}

impl Selection {
    /// Nothing is evicted.
    pub fn everything(heads: usize) -> Self {
        Self { heads: vec![HeadSelection::Everything; heads] }
    }

    /// Tokens kept by all heads together.
    pub fn total(&self, prompt_len: usize) -> usize {
        self.heads.iter().map(|head| head.len(prompt_len)).sum()
    }
}

/// Takes the best tokens of every head.
pub fn select(scores: &TokenScores, plan: &BudgetPlan, protected: Protected) -> Selection {
    let heads = plan.kept().iter().enumerate().map(|(head, &kept)| best_tokens(scores.head(head), kept, protected));
    Selection { heads: heads.collect() }
}

/// The `kept` best tokens: protected ones first, then by score, the lowest index first among equals.
///
/// A prompt no longer than `kept` passes through untouched. `kept` below the window keeps its youngest tokens.
pub fn best_tokens(scores: &[f32], kept: usize, protected: Protected) -> HeadSelection {
    let prompt_len = scores.len();
    if kept >= prompt_len {
        return HeadSelection::Everything;
    }
    let window = protected.window.min(kept);
    let sinks = protected.sinks.min(kept - window).min(prompt_len - window);
    let free = kept - window - sinks;

    let mut candidates: Vec<u32> = (sinks as u32..(prompt_len - window) as u32).collect();
    let best_first = |&a: &u32, &b: &u32| scores[b as usize].total_cmp(&scores[a as usize]).then(a.cmp(&b));
    if 0 < free && free < candidates.len() {
        candidates.select_nth_unstable_by(free - 1, best_first);
    }
    candidates.truncate(free);
    candidates.sort_unstable();

    let mut tokens = Vec::with_capacity(kept);
    tokens.extend(0..sinks as u32);
    tokens.extend(candidates);
    tokens.extend((prompt_len - window) as u32..prompt_len as u32);
    HeadSelection::Tokens(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokens(scores: &[f32], kept: usize, sinks: usize, window: usize) -> Vec<u32> {
        let kept = best_tokens(scores, kept, Protected { sinks, window }).positions(scores.len());
        kept.into_iter().map(|token| token as u32).collect()
    }

    #[test]
    fn ties_go_to_the_lowest_index() {
        assert_eq!(tokens(&[1.0, 2.0, 2.0, 2.0, 1.0], 2, 0, 0), [1, 2]);
        assert_eq!(tokens(&[0.0; 6], 3, 0, 1), [0, 1, 5]);
    }

    #[test]
    fn protected_tokens_come_first() {
        let scores = [0.0, 9.0, 8.0, 7.0, 0.0, 0.0];
        assert_eq!(tokens(&scores, 4, 1, 2), [0, 1, 4, 5]);
        assert_eq!(tokens(&scores, 2, 1, 2), [4, 5]);
        assert_eq!(tokens(&scores, 1, 1, 2), [5]);
        assert_eq!(tokens(&scores, 0, 1, 2), [0u32; 0]);
        assert_eq!(tokens(&scores, 5, 9, 1), [0, 1, 2, 3, 5]);
    }

    #[test]
    fn a_prompt_within_the_budget_passes_through() {
        assert_eq!(best_tokens(&[0.0; 4], 4, Protected::default()), HeadSelection::Everything);
        assert_eq!(best_tokens(&[], 0, Protected::default()), HeadSelection::Everything);
    }

    proptest! {
        #[test]
        fn exactly_the_budget_ascending_and_the_best(
            scores in proptest::collection::vec(-4i8..4, 1..60),
            kept in 0usize..70,
            sinks in 0usize..6,
            window in 0usize..10,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let chosen = tokens(&scores, kept, sinks, window);
            prop_assert_eq!(chosen.len(), kept.min(scores.len()));
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(chosen.iter().all(|&token| (token as usize) < scores.len()));
            let protected = |token: usize| token < sinks || token + window >= scores.len();
            let worst = chosen.iter().map(|&t| t as usize).filter(|&t| !protected(t)).map(|t| scores[t]).fold(f32::INFINITY, f32::min);
            for left_out in (0..scores.len()).filter(|&t| !protected(t) && !chosen.contains(&(t as u32))) {
                prop_assert!(scores[left_out] <= worst);
            }
        }

        #[test]
        fn a_larger_budget_keeps_a_superset(
            scores in proptest::collection::vec(-4i8..4, 2..60),
            kept in 0usize..60,
        ) {
            let scores: Vec<f32> = scores.into_iter().map(f32::from).collect();
            let (small, large) = (tokens(&scores, kept, 2, 4), tokens(&scores, kept + 1, 2, 4));
            prop_assert!(small.iter().all(|token| large.contains(token)));
        }
    }
}
