//! What each player of a cooperative game is worth.
//!
//! A [`SamplingPlan`] says which coalitions sample k evaluates; [`play`] has a game evaluate them until a [`Stop`] rule
//! is met; the [`SampleLog`] keeps what came out, in memory and in a [`LogFile`]; an [`Estimator`] turns the log into
//! an [`Estimate`]. Plans and estimators are pure functions: machines may share the samples, a play may be interrupted
//! and resumed, and another estimator may read the log later, with the same bits in the end.
//!
//! The log is files: [`lines`], [`lock`] and [`whole`] write whatever cokv writes, so that a killed process leaves nothing
//! that the next one cannot read.
//!
//! The default estimator is [`estimators::Scpr`]; CoKV's own (arXiv 2502.17501) is [`estimators::Ssv`]. Games with
//! known values are in [`games`].

#![warn(missing_docs)]

mod design;
pub mod diagnostics;
mod estimate;
pub mod estimators;
mod exact;
pub mod games;
mod interaction;
mod linear_algebra;
pub mod lines;
pub mod lock;
mod log;
mod not_finite;
mod pairs;
mod pilot;
mod plan;
mod play;
mod progress;
mod random;
mod regression;
mod sampled;
pub mod statistics;
mod stop;
pub mod whole;
mod without_replacement;

pub use design::{Design, DesignError, MOST_ENUMERATED};
pub use estimate::{Estimate, Estimator, FitError};
pub use estimators::{NAMES, estimator};
pub use exact::{ExactError, enumeration, enumeration_time, exact_shapley, exact_slices};
pub use interaction::{Interaction, interactions};
pub use log::{
    Ends, Inserted, LogError, LogFile, LogHeader, Notice, Sample, SampleLog, is_log_of, read_log, read_log_of,
};
pub use not_finite::NotFinite;
pub use plan::{Draw, SamplingPlan};
pub use play::{Kept, PlayError, PlaySettings, play};
pub use progress::Progress;
pub use sampled::Sampled;
pub use stop::{Outcome, Stop};

/// Raised where the same samples give other values than before: scores that were made of them are then made anew.
pub const READING: u32 = 2;

/// The examples of its README are tested here.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
