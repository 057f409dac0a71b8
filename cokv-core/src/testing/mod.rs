//! The contracts of [`BudgetAllocator`](crate::BudgetAllocator) and [`CacheCompressor`](crate::CacheCompressor), as
//! tests for whoever implements them (feature `testing`), and a made-up prompt for tests of one's own.
//!
//! ```
//! # use cokv_core::{
//! #     AllocationRequest, BudgetAllocator, BudgetPlan, CacheCompressor, LayerView, PolicyError, Spending,
//! # };
//! # #[derive(Debug)]
//! # struct Mine;
//! # impl BudgetAllocator for Mine {
//! #     fn allocate(&self, request: &AllocationRequest<'_>) -> Result<BudgetPlan, PolicyError> {
//! #         let each = request.total / request.layout.heads();
//! #         request.protected_tokens()?;
//! #         Ok(BudgetPlan::new(vec![each.min(request.prompt_len); request.layout.heads()]))
//! #     }
//! #     fn spending(&self) -> Spending {
//! #         Spending::AtMost("what the heads cannot share evenly is lost")
//! #     }
//! # }
//! # impl CacheCompressor for Mine {
//! #     fn score(&self, layer: &LayerView<'_>) -> Result<Vec<f32>, PolicyError> {
//! #         Ok(vec![0.0; layer.layout.kv_heads * layer.prompt_len])
//! #     }
//! # }
//! // In a test of your crate:
//! cokv_core::testing::AllocatorContract::new(&Mine).check().unwrap();
//! cokv_core::testing::CompressorContract::new(&Mine).check().unwrap();
//! ```

mod allocator;
mod case;
mod compressor;
mod prompt;

use thiserror::Error;

pub use allocator::AllocatorContract;
pub use compressor::CompressorContract;
pub use prompt::{MadeUpPrompt, grams_of};

/// What an implementation did that it must not do, with a small case that shows it.
#[derive(Debug, Error)]
#[error("{promise}: {failure}")]
pub struct ContractViolation {
    promise: &'static str,
    failure: String,
}
