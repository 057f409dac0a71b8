//! Token scorers ([`CacheCompressor`](cokv_core::CacheCompressor)) and budget allocators
//! ([`BudgetAllocator`](cokv_core::BudgetAllocator)), one file each. To add one, copy the nearest file and add a line to
//! [`registry`].

#![warn(missing_docs)]

pub mod allocators;
pub mod compressors;

use allocators::Uniform;
use cokv_core::Registry;
use compressors::{Full, Random, SnapKv, StreamingLlm};

/// All policies of this crate under the names that a TOML file gives them.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add_compressor("full", |settings| Ok(Box::new(settings.read::<Full>()?)));
    registry.add_compressor("random", |settings| Ok(Box::new(settings.read::<Random>()?)));
    registry.add_compressor("snapkv", |settings| Ok(Box::new(settings.read::<SnapKv>()?.checked(settings)?)));
    registry.add_compressor("streaming-llm", |settings| Ok(Box::new(settings.read::<StreamingLlm>()?)));
    registry.add_allocator("uniform", |settings| Ok(Box::new(settings.read::<Uniform>()?)));
    registry
}
