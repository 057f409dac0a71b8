//! Language models for cokv.
#![warn(missing_docs)]

pub mod cache;
pub mod chat;
pub mod config;
pub mod decoder;
pub mod distribution;
mod error;
pub mod game;
mod generate;
pub mod kernel;
pub mod linear;
mod model;
mod observe;
mod ops;
mod prefill;
mod rope;
pub mod source;
pub mod tokenizer;
pub mod weights;

pub use error::ModelError;
pub use generate::StopRule;
pub use kernel::matmul::linear as product;
pub use kernel::pool::threads;
pub use model::{LanguageModel, LoadOptions, fingerprint};
pub use prefill::Prefill;
