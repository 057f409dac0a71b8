//! What each prompt token is worth to each KV head.

mod critical_kv;
mod expected_attention;
mod full;
mod group;
mod h2o;
mod keydiff;
mod knorm;
mod lagkv;
mod random;
mod ranking;
mod snapkv;
mod softmax;
mod streaming_llm;
mod tova;
mod window;

pub use critical_kv::CriticalKv;
pub use expected_attention::ExpectedAttention;
pub use full::Full;
pub use h2o::H2o;
pub use keydiff::KeyDiff;
pub use knorm::Knorm;
pub use lagkv::LagKv;
pub use random::Random;
pub use snapkv::{GroupReduction, Order, Pooling, SnapKv};
pub use streaming_llm::StreamingLlm;
pub use tova::Tova;
pub use window::WindowFrom;

#[cfg(test)]
mod closed_form;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod golden;
