//! What the machine has and can do: [`memory`] and disk, and how fast it computes.

pub mod memory;
mod speed;

pub use self::speed::Machine;
