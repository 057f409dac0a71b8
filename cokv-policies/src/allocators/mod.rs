//! How many tokens each KV head keeps.
//!
//! Allocators have the same few steps: make weights of the head scores (`weights.rs`) or candidates of the token scores
//! (`tokens.rs`), then share out what is left beside the protected tokens (`pool.rs`) in whole tokens
//! ([`apportion`](crate::apportion)). All spend their total to the token; `rounding = "paper"` loses or overspends
//! tokens where a paper's code does. `contract.rs` holds every registered allocator, in each of its forms, to
//! `cokv_core::testing`.

mod ada_kv;
mod ada_pyramidkv;
mod cokv;
mod composite_ranks;
mod duo_attention;
mod dynamic_kv;
mod headkv;
mod layer_entropy;
mod layer_preferences;
mod lazy_layers;
mod per_layer;
mod pool;
mod proportional;
mod pyramidkv;
mod shapley_ada;
mod threshold;
mod tokens;
mod uniform;
mod water_filling;
mod weights;

pub use ada_kv::{AdaKv, Scope};
pub use ada_pyramidkv::AdaPyramidKv;
pub use cokv::CoKv;
pub use composite_ranks::CompositeRanks;
pub use duo_attention::DuoAttention;
pub use dynamic_kv::DynamicKv;
pub use headkv::HeadKv;
pub use layer_entropy::LayerEntropy;
pub use layer_preferences::LayerPreferences;
pub use lazy_layers::LazyLayers;
pub use per_layer::PerLayer;
pub use proportional::{Apportionment, Proportional};
pub use pyramidkv::PyramidKv;
pub use shapley_ada::ShapleyAda;
pub use threshold::Threshold;
pub use tokens::Normalise;
pub use uniform::Uniform;
pub use water_filling::{Curve, WaterFilling};

#[cfg(test)]
mod contract;
#[cfg(test)]
mod golden;
