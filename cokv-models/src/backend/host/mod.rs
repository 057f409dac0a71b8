//! What backends share whose caches lie in the host's memory.

mod answer;
mod blocks;
pub mod distribution;
mod last_queries;
mod moments;
mod pass;
mod recorder;
mod replay;
mod store;

pub(crate) use self::answer::answer;
pub use self::moments::Moments;
pub use self::pass::Pass;
pub use self::recorder::Recorder;
pub use self::store::HostStore;

/// Bytes that the process may still take, as far as the system tells.
pub(crate) fn free_bytes() -> Option<u64> {
    crate::memory::free_bytes()
}
