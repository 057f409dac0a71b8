//! What an allocator promises of a plan's total, and how a plan breaks its promises.

use std::fmt;

use thiserror::Error;

/// How an allocator's plan relates to the total that it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spending {
    /// All of it, or the whole prompt where that is less.
    Exact,
    /// Some may be lost to rounding, or to heads that were given more than the prompt is long; with the reason, as reports
    /// say it behind a colon.
    AtMost(&'static str),
    /// As published it may also come out above the total; with the reason.
    MayExceed(&'static str),
}

impl Spending {
    /// Why a plan may have another total than it was given.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Spending::Exact => None,
            Spending::AtMost(reason) | Spending::MayExceed(reason) => Some(reason),
        }
    }
}

impl fmt::Display for Spending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Spending::Exact => "exactly",
            Spending::AtMost(_) => "at most",
            Spending::MayExceed(_) => "may exceed",
        })
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
