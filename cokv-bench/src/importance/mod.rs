//! What every KV head is worth, measured: `[importance.NAME]` of a configuration and `cokv estimate`; where heads attend
//! ([`detection`]); and what is lost without the heads that some scores call strong ([`mask`]).
//!
//! An [`Importance`] says what to play and how; an [`Estimation`] is that for a model, whose weights may still be on disk, with the records
//! read and everything checked; playing it appends to a log of samples and ends in a [`ScoreFile`](crate::scores::ScoreFile).

mod calibration;
pub mod convergence;
pub mod detection;
mod error;
mod estimation;
mod estimators;
pub mod mask;
mod settings;
mod study;
mod workload;

pub use self::calibration::{Calibration, CalibrationError};
pub use self::error::ImportanceError;
pub use self::estimation::{Estimated, Estimation, Importance};
pub use self::estimators::named;
pub use self::settings::ImportanceSettings;
pub use self::workload::{Span, Work};
