//! What the machine has and can do: [`memory`] and disk, how fast it computes, how long a model takes there, and what else it may
//! have to do.

pub mod memory;
mod neighbours;
mod pace;
mod speed;

pub use self::neighbours::Neighbours;
#[cfg(test)]
pub(crate) use self::pace::tests;
pub use self::pace::{Pace, prefill_operations};
pub use self::speed::Machine;
