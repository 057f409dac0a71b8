//! The arithmetic that candle does not offer: attention over ragged caches, and matrix products with few rows.
//!
//! Everything here works on plain slices, runs on one set of threads and gives the same bits for any number of
//! threads: work is cut at fixed sizes, never by the number of threads.

#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
pub mod dense;
pub mod elementwise;
pub mod exponential;
mod huge;
pub mod matmul;
pub mod memory;
pub mod parts;
pub mod pool;
pub mod quantised;
mod row_blocks;
pub mod rows;
pub mod simd;
mod vector;
