//! How many tokens each KV head keeps.

/// Prompt tokens that each KV head keeps, window included: `[layers, kv_heads]`, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetPlan {
    kept: Vec<usize>,
}

impl BudgetPlan {
    /// One count per KV head, in flat order.
    pub fn new(kept: Vec<usize>) -> Self {
        Self { kept }
    }

    /// The counts in flat order.
    pub fn kept(&self) -> &[usize] {
        &self.kept
    }

    /// Tokens of all heads together.
    pub fn total(&self) -> usize {
        self.kept.iter().copied().fold(0, usize::saturating_add)
    }
}
