//! When an answer ends, and which token comes next.

use crate::ask::{Ask, Top};

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
    fn bars(&self, generated: usize) -> bool {
        generated < self.min_new_tokens
    }

    /// Tokens that may not come next.
    pub(crate) fn barred(&self, generated: usize) -> &[u32] {
        if self.bars(generated) { &self.tokens } else { &[] }
    }

    /// Of how many of the likeliest tokens one may come next, whichever of them are barred.
    fn candidates(&self, generated: usize) -> usize {
        1 + if self.bars(generated) { self.tokens.len() } else { 0 }
    }

    /// What has to be known to choose the next token.
    pub(crate) fn ask(&self, generated: usize) -> Ask<'static> {
        Ask::Top { count: self.candidates(generated), log_sum_exp: false }
    }

    /// What has to be known to choose the first token, of logits `[vocabulary]`.
    pub(crate) fn top_of(&self, logits: &[f32]) -> Top {
        Top::of(logits, self.candidates(0))
    }

    /// The likeliest token that may come next; the lowest id among equals.
    pub(crate) fn choose(&self, top: &Top, generated: usize) -> u32 {
        let barred = |token: u32| self.bars(generated) && self.tokens.contains(&token);
        // A vocabulary of stop tokens alone leaves the first id.
        top.tokens.iter().map(|&(token, _)| token).find(|&token| !barred(token)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_stops_are_barred() {
        let stop = StopRule { tokens: vec![1], max_new_tokens: 9, min_new_tokens: 1 };
        let top = Top { tokens: vec![(1, 5.0), (2, 3.0)], log_sum_exp: None };
        assert_eq!((stop.choose(&top, 0), stop.choose(&top, 1)), (2, 1));
        assert!(matches!((stop.ask(0), stop.ask(1)), (Ask::Top { count: 2, .. }, Ask::Top { count: 1, .. })));
    }
}
