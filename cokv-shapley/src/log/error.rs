//! What is wrong with a log.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::LARGEST_UTILITY;
use crate::DesignError;
use crate::lock::LockError;

/// A log that cannot be kept or read.
#[derive(Debug, Error)]
pub enum LogError {
    /// The plan cannot be drawn from.
    #[error(transparent)]
    Design(#[from] DesignError),
    /// A sample that the plan does not have.
    #[error("there is no sample {k}: the design ends after {samples}")]
    NoSuchSample {
        /// Which sample.
        k: u64,
        /// Samples of the plan.
        samples: u64,
    },
    /// Too few or too many utilities.
    #[error("{what} has {found} utilities; the plan asks for {expected}")]
    WrongLength {
        /// `sample 12`, or an end.
        what: String,
        /// Utilities given.
        found: usize,
        /// Utilities that the plan asks for.
        expected: usize,
    },
    /// NaN, an infinity, or so large that sums of squares might become one.
    #[error("{what} has the utility {value}; utilities are finite numbers, not larger than {LARGEST_UTILITY:e}")]
    NotFinite {
        /// `sample 12`, or an end.
        what: String,
        /// Its utility.
        value: f64,
    },
    /// The same thing with two outcomes.
    #[error(
        "{what} was evaluated twice with different utilities ({first:?}, then {second:?}): the game is not \
         deterministic, or it has changed"
    )]
    Conflict {
        /// `sample 12`, or an end.
        what: String,
        /// What the log holds.
        first: Vec<f64>,
        /// What was to be added.
        second: Vec<f64>,
    },
    /// Logs of two games cannot be one.
    #[error("the logs have different headers: `{field}` is {found} in one and {expected} in the other")]
    OtherHeader {
        /// What differs.
        field: String,
        /// There.
        found: String,
        /// Here.
        expected: String,
    },
    /// The file belongs to another game or plan.
    #[error(
        "{path} is the log of another play: its `{field}` is {found}, not {expected}; give another file, or what it \
         was sampled with"
    )]
    OtherGame {
        /// The file.
        path: PathBuf,
        /// What differs.
        field: String,
        /// In the file.
        found: String,
        /// Asked for.
        expected: String,
    },
    /// No log at all.
    #[error("{path} is not a log of samples: {reason}")]
    NotALog {
        /// The file.
        path: PathBuf,
        /// What its first line lacks.
        reason: String,
    },
    /// A line that cannot be read.
    #[error("{path}:{line}: {reason}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A line that contradicts the plan or the lines before it.
    #[error("{path}:{line}: {error}")]
    At {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What is wrong with it.
        error: Box<LogError>,
    },
    /// A sample of another plan.
    #[error(
        "sample {k} evaluated other coalitions or instances than its plan draws: this log was sampled with another seed \
         or version"
    )]
    OtherDraw {
        /// Which sample.
        k: u64,
    },
    /// Somebody else is writing.
    #[error("{0}; wait for it, or give this one a file of its own")]
    Locked(LockError),
    /// The file system failed.
    #[error("{path}: {error}{}", advice(error))]
    Io {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space and run the same command again: the samples are kept",
        _ => "",
    }
}

impl LogError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |error| Self::Io { path, error }
    }
}

impl From<LockError> for LogError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Io { path, error } => Self::Io { path, error },
            held => Self::Locked(held),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use super::*;

    /// Reports of errors write the sources of an error behind it.
    #[test]
    fn nothing_is_said_twice() {
        let full = || LogError::io(Path::new("log"))(io::ErrorKind::StorageFull.into());
        let twice = LogError::At { path: "log".into(), line: 2, error: Box::new(LogError::OtherDraw { k: 1 }) };
        assert!(full().source().is_none() && twice.source().is_none());
        assert!(full().to_string().contains("the samples are kept"), "{}", full());
    }
}
