//! LongBench and synthetic tasks, the matrix of methods and budgets, and the `cokv` command line.

#![warn(missing_docs)]

pub mod cli;
pub mod config;
pub mod data;
mod markdown;
pub mod metrics;
pub mod prompt;
pub mod run;

/// Whether this build has a cargo feature of candle's.
pub(crate) fn built_with(feature: &str) -> bool {
    match feature {
        "cuda" => cfg!(feature = "cuda"),
        "metal" => cfg!(feature = "metal"),
        "mkl" => cfg!(feature = "mkl"),
        "accelerate" => cfg!(feature = "accelerate"),
        _ => false,
    }
}
