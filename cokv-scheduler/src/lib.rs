#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod figures;
mod handle;
mod job;
mod refusal;
mod told;

pub use figures::{Counter, Figures, Seconds};
pub use handle::{EntryState, Handle, Reply, Restored, State, Ticket};
pub use job::{Compression, Job, Namespace, NewDocument};
pub use refusal::Refusal;
pub use told::{Document, DocumentTold, MadeBy, Told, Used, UsedCache};
