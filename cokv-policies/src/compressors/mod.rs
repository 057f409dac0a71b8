//! What each prompt token is worth to each KV head.

mod base;
mod capkv;
mod compactor;
mod critical_kv;
mod cur;
mod dropkv;
mod expected_attention;
mod full;
mod group;
mod h2o;
mod keydiff;
mod knorm;
mod lagkv;
mod leverage;
mod linear_algebra;
mod mean_rotation;
mod non_causal_attention;
mod pooling;
mod random;
mod random_matrix;
mod ranking;
mod rest_kv;
mod snapkv;
mod softmax;
mod streaming_llm;
mod tova;
mod window;
mod z_score;

pub use base::{Nothing, OnBase};
pub use capkv::CapKv;
pub use compactor::Compactor;
pub use critical_kv::CriticalKv;
pub use cur::{Cur, Kind};
pub use dropkv::DropKv;
pub use expected_attention::ExpectedAttention;
pub use full::Full;
pub use h2o::H2o;
pub use keydiff::KeyDiff;
pub use knorm::Knorm;
pub use lagkv::LagKv;
pub use leverage::Leverage;
pub use non_causal_attention::{NonCausalAttention, Padding};
pub use pooling::Pooling;
pub use random::Random;
pub use rest_kv::RestKv;
pub use snapkv::{GroupReduction, Order, SnapKv};
pub use streaming_llm::StreamingLlm;
pub use tova::Tova;
pub use window::WindowFrom;

#[cfg(test)]
mod closed_form;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod golden;
