//! What a reader of logs should know, and that is no error.

use std::fmt;

use super::Inserted;

/// Something about a log that its reader should know, and that is no error.
#[derive(Clone, Debug, PartialEq)]
pub enum Notice {
    /// The writer was stopped in the middle of the last line; what it had written of it does not count.
    TornLine {
        /// Line, counted from 1.
        line: usize,
    },
    /// What is there more than once.
    Duplicates {
        /// Lines too many.
        count: usize,
        /// By how much its utilities differ at most.
        largest: f64,
    },
    /// What another log holds too, evaluated by a machine that rounds differently.
    Rounding {
        /// Samples, or ends.
        count: usize,
        /// By how much their utilities differ at most.
        largest: f64,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornLine { line } => write!(f, "line {line} was never finished and does not count"),
            Self::Duplicates { count, largest: 0.0 } => {
                write!(f, "{count} lines repeat earlier ones with equal utilities")
            }
            Self::Duplicates { count, largest } => write!(
                f,
                "{count} lines repeat earlier ones with utilities that differ by up to {largest:.1e}, as machines round; the \
                 first of each counts"
            ),
            Self::Rounding { count, largest } => write!(
                f,
                "{count} utilities that other logs hold too differ by up to {largest:.1e}, as machines round; the first of \
                 each counts"
            ),
        }
    }
}

/// Counts what was known already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repeats {
    count: usize,
    rounded: usize,
    largest: f64,
}

impl Repeats {
    pub fn count(&mut self, inserted: Inserted) {
        let Inserted::Known(difference) = inserted else { return };
        self.count += 1;
        self.rounded += usize::from(difference > 0.0);
        self.largest = self.largest.max(difference);
    }

    /// Within one log, nothing should be there twice.
    pub fn duplicates(self) -> Option<Notice> {
        let Self { count, largest, .. } = self;
        (count > 0).then_some(Notice::Duplicates { count, largest })
    }

    /// Between logs only what differs is worth a word: every shard holds the ends.
    pub fn rounding(self) -> Option<Notice> {
        let Self { rounded: count, largest, .. } = self;
        (count > 0).then_some(Notice::Rounding { count, largest })
    }
}
