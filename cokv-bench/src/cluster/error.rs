//! What goes wrong with a run on a cluster before any of its tasks fails.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a run cannot be spread, or a task of it not run.
#[derive(Debug, Error)]
pub enum ClusterError {
    /// A file could not be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file of ours says something else than we wrote.
    #[error("{}: {error}; cokv cluster submit writes it anew", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// The run's folder is not there, or has not been submitted.
    #[error(
        "{} is not there on {host}: the folder of a run must lie where every node sees it (a home folder, or the cluster's shared file \
         system, not /tmp), and `cokv cluster submit` must have written it",
        path.display()
    )]
    NotShared {
        /// What is missing.
        path: PathBuf,
        /// The machine that misses it.
        host: String,
    },
    /// A node has another build.
    #[error(
        "cokv on {host} is another build than the one that was submitted: {here} here, {submitted} on {from}; rows of two builds are \
         not compared: install one of them everywhere, or submit again with this one"
    )]
    OtherBuild {
        /// The machine that refuses.
        host: String,
        /// Its build.
        here: String,
        /// The build of the submission.
        submitted: String,
        /// The machine that submitted.
        from: String,
    },
    /// A stage that the run has not, or an index beyond its tasks.
    #[error("{0}")]
    NoSuchTask(String),
    /// Another process submits the run just now.
    #[error("the run is being submitted by {holder}; if there is no such process any more, remove {}", path.display())]
    Submitting {
        /// Machine and process.
        holder: String,
        /// The file that says so.
        path: PathBuf,
    },
    /// The run is in Slurm's queue already.
    #[error(
        "the run is in Slurm's queue (jobs {jobs}): `cokv cluster status {run}` says how it goes, `cokv cluster cancel {run}` ends it"
    )]
    Queued {
        /// Job numbers.
        jobs: String,
        /// The run's folder.
        run: String,
    },
    /// There is no Slurm.
    #[error(
        "there is no Slurm here ({command}: {error}): --workers N runs the same tasks on this machine, --dry-run shows what would be \
         submitted"
    )]
    NoSlurm {
        /// The command that is missing.
        command: String,
        /// What the system said.
        error: io::Error,
    },
    /// A command of Slurm's failed.
    #[error("{command}: {message}")]
    Slurm {
        /// The command.
        command: String,
        /// What it said.
        message: String,
    },
    /// A partition that Slurm does not know.
    #[error("there is no partition `{partition}` here; there are: {known}")]
    NoPartition {
        /// The one asked for.
        partition: String,
        /// Those that there are.
        known: String,
    },
}

pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> ClusterError + use<> {
    let path = path.to_path_buf();
    move |error| ClusterError::Io { path, error }
}
