//! How many tokens each KV head keeps.

use thiserror::Error;

use crate::{AllocationRequest, Spending};

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

    /// Holds the plan to what [`BudgetAllocator::allocate`](crate::BudgetAllocator::allocate) promises: a count for
    /// every head, between the protected tokens and the prompt, together as the allocator spends.
    pub fn check(&self, request: &AllocationRequest<'_>, spending: Spending) -> Result<(), PlanError> {
        let AllocationRequest { layout, prompt_len, total, protected, .. } = *request;
        if self.kept.len() != layout.heads() {
            return Err(PlanError::WrongNumber { found: self.kept.len(), expected: layout.heads() });
        }
        let protected = prompt_len - protected.candidates(prompt_len).len();
        for (head, &kept) in self.kept.iter().enumerate() {
            let (layer, kv_head) = layout.place(head);
            if kept > prompt_len {
                return Err(PlanError::AbovePrompt { layer, kv_head, kept, prompt_len });
            }
            if kept < protected {
                return Err(PlanError::BelowProtected { layer, kv_head, kept, protected });
            }
        }
        let (planned, payable) = (self.total(), total.min(layout.heads().saturating_mul(prompt_len)));
        let spends = match spending {
            Spending::Exact => planned == payable,
            Spending::AtMost(_) => planned <= payable,
            Spending::MayExceed(_) => true,
        };
        if spends { Ok(()) } else { Err(PlanError::WrongTotal { planned, payable, spending }) }
    }
}

/// A plan that breaks what every allocator promises.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// Not one count for each head.
    #[error("there are {found} counts for {expected} KV heads")]
    WrongNumber {
        /// Counts in the plan.
        found: usize,
        /// KV heads of the model.
        expected: usize,
    },
    /// More than there is.
    #[error("head {layer}.{kv_head} gets {kept} tokens of a prompt of {prompt_len}")]
    AbovePrompt {
        /// The layer.
        layer: usize,
        /// The KV head of that layer.
        kv_head: usize,
        /// Its tokens.
        kept: usize,
        /// Prompt tokens.
        prompt_len: usize,
    },
    /// Fewer than every head keeps.
    #[error("head {layer}.{kv_head} gets {kept} tokens, fewer than the {protected} that are always kept")]
    BelowProtected {
        /// The layer.
        layer: usize,
        /// The KV head of that layer.
        kv_head: usize,
        /// Its tokens.
        kept: usize,
        /// Sinks and window, at most the prompt.
        protected: usize,
    },
    /// Another total than the allocator says that it spends.
    #[error("all heads together get {planned} tokens, where {spending} {payable} are to be spent")]
    WrongTotal {
        /// Tokens of the plan.
        planned: usize,
        /// Tokens that all heads may keep together, at most all of the prompt.
        payable: usize,
        /// What the allocator says.
        spending: Spending,
    },
}
