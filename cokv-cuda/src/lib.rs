//! The CUDA backend of cokv.
#![warn(missing_docs)]

mod answer;
mod backend;
mod ceilings;
pub mod device;
mod error;
pub mod gpu;
pub mod kernels;
mod linear;
mod matrix;
mod pass;
pub mod plan;
mod store;
mod watch;

pub use backend::Cuda;
pub use error::{CudaError, Result};
