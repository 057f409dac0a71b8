//! KV caches: what is shared, once ([`Segment`]), and what a sequence holds of it, head by head ([`RaggedCache`]).
//!
//! Bookkeeping only, the same everywhere: the numbers lie in a backend's [`Store`].

pub mod file;
mod places;
mod ragged;
mod segment;
mod store;

pub use places::Places;
pub use ragged::RaggedCache;
pub use segment::{SLICES, Segment};
pub use store::Store;
