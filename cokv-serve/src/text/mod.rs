//! From tokens to what a client reads.

pub mod answer;
pub mod stop;
