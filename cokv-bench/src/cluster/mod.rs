//! A run spread over the nodes of a cluster, or the GPUs of one machine.
//!
//! cokv schedules nothing: a [`Stage`] is an array of tasks, what a task does follows from its index alone, and who runs it where, and
//! again after a node was lost, is Slurm's affair (or Kubernetes's, or PBS's), or that of [`workers`] on one machine. Everything lies in
//! the run's folder, under `cluster/`:
//!
//! ```text
//! config.toml       the configuration as it was submitted
//! submission.json   its stages, and the build of cokv
//! STAGE.sbatch      what Slurm was given          jobs.json    under which numbers it runs
//! logs/             what tasks said               tasks/       how they ended
//! ```
//!
//! No file is written to by two processes, none is locked, and no clock is compared with another.

mod error;
pub mod slurm;
pub mod stages;
pub mod status;
pub mod submission;
mod task;
pub mod workers;

pub use self::error::ClusterError;
pub use self::stages::{Duty, Stage, stages};
pub use self::submission::{Build, FOLDER, Submission};
pub use self::task::{AGAIN, Task, TaskEnd};
