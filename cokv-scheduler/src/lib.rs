#![doc = include_str!("../README.md")]
#![warn(missing_docs)]

mod entries;
mod figures;
mod handle;
mod job;
mod pace;
mod queue;
mod refusal;
mod scheduler;
mod settings;
mod told;
mod worker;

pub use figures::{Counter, Figures, Seconds};
#[doc(hidden)]
pub use handle::{Command, Flags};
pub use handle::{EntryState, Handle, Reply, Restored, State, Ticket};
pub use job::{Compression, Job, Namespace, NewDocument};
pub use refusal::Refusal;
pub use scheduler::Scheduler;
pub use settings::Settings;
pub use told::{Document, DocumentTold, MadeBy, Told, Used, UsedCache};
pub use worker::{Worker, start};
