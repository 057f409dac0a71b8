//! Why importance could not be measured.

use cokv_core::GameError;
use cokv_models::game::HeadMaskError;
use cokv_shapley::games::RestrictedError;
use cokv_shapley::{DesignError, FitError, LogError, PlayError};
use thiserror::Error;

use super::CalibrationError;
use crate::scores::NoSuchHead;

/// Why importance could not be measured. Samples that were kept stay.
#[derive(Debug, Error)]
pub enum ImportanceError {
    /// The settings contradict each other or the model.
    #[error("{0}")]
    Settings(String),
    /// A head that the model has not.
    #[error(transparent)]
    Head(#[from] NoSuchHead),
    /// The records cannot be read.
    #[error(transparent)]
    Calibration(#[from] CalibrationError),
    /// What should be sampled does not exist.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// Enumeration is out of reach.
    #[error(
        "all coalitions of {heads} heads on {records} records are {evaluations:.1e} evaluations, about {time} at the \
         speed measured just now; name at most {most} heads (--heads 18.2,23.0,…; the others keep the whole prompt) \
         or take another estimator"
    )]
    TooManyHeads {
        /// Heads that play.
        heads: usize,
        /// Records that are played.
        records: usize,
        /// Coalitions times records.
        evaluations: f64,
        /// How long that takes.
        time: String,
        /// Heads that can be enumerated.
        most: usize,
    },
    /// The file of samples cannot be used.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The records cannot be played.
    #[error(transparent)]
    Records(#[from] HeadMaskError),
    /// The heads named cannot play.
    #[error(transparent)]
    Heads(#[from] RestrictedError),
    /// The game failed.
    #[error(transparent)]
    Game(GameError),
    /// The play failed.
    #[error(transparent)]
    Play(#[from] PlayError),
    /// The samples cannot be turned into scores.
    #[error(transparent)]
    Fit(#[from] FitError),
}
