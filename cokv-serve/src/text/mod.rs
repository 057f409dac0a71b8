//! From tokens to what a client reads.

pub mod answer;
pub mod calls;
pub mod choices;
pub mod stop;
