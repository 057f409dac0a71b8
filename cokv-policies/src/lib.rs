//! Token scorers ([`CacheCompressor`](cokv_core::CacheCompressor)) and budget allocators
//! ([`BudgetAllocator`](cokv_core::BudgetAllocator)), one file each. To add one, copy the nearest file and add a line to
//! [`registry`].

#![warn(missing_docs)]

pub mod allocators;
pub mod apportion;
pub mod compressors;
pub mod settings;

use allocators::{
    AdaKv, AdaPyramidKv, CoKv, DuoAttention, HeadKv, Proportional, PyramidKv, ShapleyAda, Uniform, WaterFilling,
};
use cokv_core::Registry;
use compressors::{
    CriticalKv, ExpectedAttention, Full, H2o, KeyDiff, Knorm, LagKv, Random, SnapKv, StreamingLlm, Tova,
};

/// All policies of this crate under the names that a TOML file gives them.
pub fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.add_compressor("critical-kv", |settings| Ok(Box::new(CriticalKv::read(settings)?)));
    registry.add_compressor("expected-attention", |settings| Ok(Box::new(settings.read::<ExpectedAttention>()?)));
    registry.add_compressor("full", |settings| Ok(Box::new(settings.read::<Full>()?)));
    registry.add_compressor("h2o", |settings| Ok(Box::new(settings.read::<H2o>()?)));
    registry.add_compressor("keydiff", |settings| Ok(Box::new(settings.read::<KeyDiff>()?)));
    registry.add_compressor("knorm", |settings| Ok(Box::new(settings.read::<Knorm>()?)));
    registry.add_compressor("lagkv", |settings| Ok(Box::new(settings.read::<LagKv>()?.checked(settings)?)));
    registry.add_compressor("random", |settings| Ok(Box::new(settings.read::<Random>()?)));
    registry.add_compressor("snapkv", |settings| Ok(Box::new(settings.read::<SnapKv>()?.checked(settings)?)));
    registry.add_compressor("streaming-llm", |settings| Ok(Box::new(settings.read::<StreamingLlm>()?)));
    registry.add_compressor("tova", |settings| Ok(Box::new(settings.read::<Tova>()?)));
    registry.add_allocator("ada-kv", |settings| Ok(Box::new(settings.read::<AdaKv>()?)));
    registry.add_allocator("ada-pyramidkv", |settings| Ok(Box::new(settings.read::<AdaPyramidKv>()?)));
    registry.add_allocator("cokv", |settings| Ok(Box::new(settings.read::<CoKv>()?)));
    registry.add_allocator("duo-attention", |settings| Ok(Box::new(settings.read::<DuoAttention>()?)));
    registry.add_allocator("headkv", |settings| Ok(Box::new(settings.read::<HeadKv>()?.checked(settings)?)));
    registry.add_allocator("proportional", |settings| Ok(Box::new(settings.read::<Proportional>()?)));
    registry.add_allocator("pyramidkv", |settings| Ok(Box::new(settings.read::<PyramidKv>()?)));
    registry.add_allocator("shapley-ada", |settings| Ok(Box::new(settings.read::<ShapleyAda>()?)));
    registry.add_allocator("uniform", |settings| Ok(Box::new(settings.read::<Uniform>()?)));
    registry.add_allocator("water-filling", |settings| Ok(Box::new(settings.read::<WaterFilling>()?)));
    registry
}
