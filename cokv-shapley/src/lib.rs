//! Cooperative games with known values, and the exact Shapley value to measure estimators against.

#![warn(missing_docs)]

mod exact;
pub mod games;

pub use exact::{Exact, ExactError, exact_shapley};
