#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod architecture;
pub mod ask;
pub mod backend;
pub mod batch;
pub mod cache;
pub mod chat;
pub mod config;
pub mod contract;
pub mod decoder;
mod digest;
pub mod engine;
mod error;
mod eviction;
mod files;
pub mod game;
mod generate;
pub mod kernel;
pub mod ledger;
pub mod memory;
mod model;
pub mod outline;
mod prefill;
mod replay;
pub mod rope;
pub mod sampling;
mod saved;
pub mod source;
mod stop;
pub mod tokenizer;
pub mod weights;

/// To be raised when a change of code changes what the CPU computes, so that what was computed before is not taken for what
/// would be computed now. `tests/bits.rs` notices such changes.
pub const NUMERICS: u32 = 5;

pub use digest::{fingerprint, known_fingerprint, scores_fingerprint};
pub use error::ModelError;
pub use eviction::{Eviction, compress_at_rest};
pub use generate::{Answered, ComparedWith, Forced};
pub use kernel::matmul::linear as product;
pub use kernel::matmul::multiply_transposed;
pub use kernel::pool::{for_each_chunk, map as in_parallel};
pub use kernel::pool::{set_threads, threads};
pub use kernel::simd::instructions;
pub use model::{Device, LanguageModel, LoadOptions, load_engine, load_on};
pub use outline::Outline;
pub use prefill::{Compressed, Prefill, Prefilling, Scoring, rotates_alike};
pub use replay::SecondPass;
pub use stop::StopRule;
pub use weights::WeightType;
