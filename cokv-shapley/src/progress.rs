//! How far a play has come.

use std::time::Duration;

use crate::Estimate;
use crate::diagnostics::SplitHalf;

/// How far a play has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Progress {
    /// Samples in the log.
    pub samples: u64,
    /// Evaluations in the log.
    pub evaluations: u64,
    /// Evaluations of this play.
    pub new_evaluations: u64,
    /// Time of this play.
    pub elapsed: Duration,
    /// What the samples said when they were fitted last; none while there are too few.
    pub estimate: Option<Estimate>,
    /// How the estimates of two halves of the log agreed then; none where no stop rule asks.
    pub halves: Option<SplitHalf>,
    /// Time left, as far as the stop rules let it be foreseen.
    pub remaining: Option<Duration>,
}
