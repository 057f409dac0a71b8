//! LongBench and synthetic tasks, the matrix of methods and budgets, and the `cokv` command line.

#![warn(missing_docs)]

pub mod calibration;
pub mod cli;
pub mod config;
pub mod data;
mod fingerprint;
mod markdown;
pub mod metrics;
pub mod prompt;
pub mod run;
pub mod scores;
