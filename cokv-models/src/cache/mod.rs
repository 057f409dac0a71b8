//! KV caches: the whole prompt once ([`PromptCache`]), and what a method keeps of it, head by head ([`RaggedCache`]).

mod ragged;
mod rows;

pub(crate) use ragged::HeadView;
pub use ragged::{PromptCache, RaggedCache};
pub use rows::{CacheType, Elements, HeadRows};
