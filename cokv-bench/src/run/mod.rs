//! The matrix: tasks × records × methods × budgets, one prefill per record.

mod budget;
mod cells;
mod chosen;
mod folder;
pub mod inspect;
mod kept;
mod kept_tokens;
mod manifest;
mod matrix;
mod measure;
mod notes;
pub mod origin;
mod predictions;
mod store;
mod table;

pub use budget::CellBudget;
pub use cells::{Cell, Measure, Pairs, cells};
pub use chosen::{Choice, FILE as SELECTION, Selected, SelectionError, Trial, selection_fingerprint};
pub use folder::{StoreError, write};
pub(crate) use folder::{files_in, new_file};
pub use kept::{Kept, KeptCell, STRETCHES};
pub use kept_tokens::{KeptTokens, marked};
pub use manifest::{MODELS, Manifest, ManifestMethod};
pub use matrix::{Asked, Ended, Matrix, Plan, RunError, asked, capped, tail_remark, tasks};
pub use measure::Damage;
pub(crate) use measure::mean;
pub use notes::{name, notes, unworthy};
pub use predictions::write_predictions;
#[cfg(test)]
pub(crate) use store::tests;
pub use store::{Opened, Repeated, Results, Row, RunStore};
pub use table::tables;
