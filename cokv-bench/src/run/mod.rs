//! The matrix: tasks × records × methods × budgets, one prefill per record.

mod matrix;
mod measure;
pub mod memory;
mod store;
mod table;

pub use matrix::{Matrix, Observer, Plan, RunError, tasks};
pub use measure::Damage;
pub(crate) use measure::mean;
#[cfg(test)]
pub(crate) use store::tests;
pub use store::{Opened, Results, Row, RunStore, StoreError};
pub use table::{Summary, summarise};
