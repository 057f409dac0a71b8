//! What the machine has and can do: [`memory`] and disk, how fast it computes, and what else it may have to do.

pub mod memory;
mod neighbours;
mod speed;

pub use self::neighbours::Neighbours;
pub use self::speed::Machine;
