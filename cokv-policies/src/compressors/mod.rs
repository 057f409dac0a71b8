//! What each prompt token is worth to each KV head.

mod full;
mod random;
mod snapkv;
mod streaming_llm;

pub use full::Full;
pub use random::Random;
pub use snapkv::{GroupReduction, Order, Pooling, SnapKv};
pub use streaming_llm::StreamingLlm;

#[cfg(test)]
mod contract;
