//! LongBench and synthetic tasks, the matrix of methods and budgets, and the `cokv` command line.

#![warn(missing_docs)]

pub mod calibration;
pub mod cli;
pub mod config;
pub mod convergence;
pub mod data;
mod fingerprint;
pub mod importance;
pub mod inspect;
mod markdown;
pub mod mask;
pub mod metrics;
pub mod perf;
pub mod prompt;
pub mod report;
pub mod retrieval;
pub mod run;
pub mod scores;
pub mod selection;
pub mod statistics;
