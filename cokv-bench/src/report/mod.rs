//! Finished and unfinished runs as a page, as Markdown, as LaTeX and as CSV.
//!
//! `run` reads a run's folder; `tables`, `pairwise`, `predictions` and `figures` say what is in it; `page`, `markdown`, `latex`
//! and `csv` are the forms.

mod build;
mod columns;
pub mod compare;
mod content;
mod figures;
mod forms;
mod latex;
mod page;
mod pairwise;
mod predictions;
mod run;
mod tables;

use thiserror::Error;

pub use content::{Figure, Heading, Predicted, Prediction, Predictions, Report, Section, Table, TableCell};
pub use forms::{cells_csv, csv, markdown};
pub use latex::latex;
pub use page::page;
pub use pairwise::{Verdict, verdicts};
pub use predictions::predictions_csv;
pub use run::{LoadedRun, ModelRun};

use crate::chart::PlotError;
use crate::run::StoreError;

/// Why there is no report.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A run's folder cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A folder has no rows.
    #[error("{0}: no results here; name the folder of a run, such as runs/cokv, that `cokv bench` has made")]
    NoRows(String),
    /// A picture cannot be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The page cannot be put together.
    #[error("the page could not be made: {0}")]
    Page(#[from] minijinja::Error),
    /// A table cannot be written.
    #[error("a table could not be written: {0}")]
    Csv(String),
}
