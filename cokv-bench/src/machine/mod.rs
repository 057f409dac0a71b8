//! What the machine has and can do: [`memory`] and disk, how fast it computes, and how long a model takes there.

pub mod memory;
mod pace;
mod speed;

#[cfg(test)]
pub(crate) use self::pace::tests;
pub use self::pace::{Pace, prefill_operations};
pub use self::speed::Machine;
