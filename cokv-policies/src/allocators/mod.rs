//! How many tokens each KV head keeps.

mod uniform;

pub use uniform::Uniform;
