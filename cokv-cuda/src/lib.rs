#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod backend;
pub mod device;
mod error;
pub mod gpu;
pub mod kernels;
mod linear;
mod matrix;
pub mod plan;
mod store;

pub use backend::Cuda;
pub use error::{CudaError, Result};
