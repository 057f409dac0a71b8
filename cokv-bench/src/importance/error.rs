//! Why importance could not be measured.

use std::path::PathBuf;

use cokv_core::{GameError, ScoresError};
use cokv_models::game::HeadMaskError;
use thiserror::Error;

use super::CalibrationError;
use crate::scores::{NoSuchHead, ScoreFileError};

/// Why importance could not be measured. Samples that were kept stay.
#[derive(Debug, Error)]
pub enum ImportanceError {
    /// The settings contradict each other or the model.
    #[error("{0}")]
    Settings(String),
    /// A head that the model has not.
    #[error(transparent)]
    Head(#[from] NoSuchHead),
    /// The prior is another model's.
    #[error("the prior {} cannot be used: {reason}", path.display())]
    OtherPrior {
        /// The score file.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
    /// The prior cannot be read.
    #[error(transparent)]
    Prior(#[from] ScoreFileError),
    /// The records cannot be read.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// Enumeration is out of reach.
    #[error(
        "all coalitions of {heads} heads on {records} records are {evaluations:.1e} evaluations{time}; name at most \
         {most} heads (--heads 18.2,23.0,…; the others keep the whole prompt) or take another estimator"
    )]
    TooManyHeads {
        /// Heads that play.
        heads: usize,
        /// Records that are played.
        records: usize,
        /// Coalitions times records.
        evaluations: f64,
        /// How long that takes, as the sentence goes on; empty where it is not known.
        time: String,
        /// Heads that can be enumerated.
        most: usize,
    },
    /// The records cannot be played.
    #[error(transparent)]
    Records(#[from] HeadMaskError),
    /// The game failed.
    #[error(transparent)]
    Game(GameError),
    /// The estimator failed.
    #[error(transparent)]
    Estimator(GameError),
    /// The estimator returned an array of the wrong length.
    #[error("the estimator returned {found} values where {expected} heads are asked about")]
    WrongLength {
        /// Values returned.
        found: usize,
        /// Values that the study asks for.
        expected: usize,
    },
    /// What the estimator returned are no scores.
    #[error(transparent)]
    Scores(#[from] ScoresError),
}
