//! LongBench and synthetic tasks, the matrix of methods and budgets, and the `cokv` command line.

#![warn(missing_docs)]

pub mod chart;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod data;
pub mod device;
pub mod document;
pub mod event;
mod fingerprint;
pub mod importance;
pub mod learned;
pub mod machine;
mod markdown;
pub mod metrics;
pub mod model;
mod names;
pub mod perf;
pub mod report;
pub mod run;
pub mod scores;
pub mod selection;
pub mod serving;
pub mod statistics;

/// The examples of its README are tested here.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
