//! Tokens that scores do not decide about.

use std::ops::Range;

use crate::{HeadLayout, PolicyError};

/// Prompt tokens that a compressor keeps whatever their scores are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Protected {
    /// Tokens at the start.
    pub sinks: usize,
    /// Tokens at the end.
    pub window: usize,
}

impl Protected {
    /// Positions that scores decide about: behind the sinks and before the window.
    pub fn candidates(&self, prompt_len: usize) -> Range<usize> {
        let end = prompt_len.saturating_sub(self.window);
        self.sinks.min(end)..end
    }

    /// What either protects.
    pub fn or(self, other: Self) -> Self {
        Self { sinks: self.sinks.max(other.sinks), window: self.window.max(other.window) }
    }

    /// Protected tokens of one head, or [`PolicyError::BudgetBelowProtected`] where a total for all heads does not pay for
    /// them.
    pub fn within(&self, total: usize, layout: HeadLayout, prompt_len: usize) -> Result<usize, PolicyError> {
        let protected = prompt_len - self.candidates(prompt_len).len();
        let heads = layout.heads();
        match heads.saturating_mul(protected) <= total {
            true => Ok(protected),
            false => Err(PolicyError::BudgetBelowProtected { total, protected, heads }),
        }
    }
}
