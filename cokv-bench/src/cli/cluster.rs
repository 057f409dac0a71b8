//! `cokv cluster`

mod local;
mod status;
mod submit;
mod work;

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Subcommand;
use cokv_core::Registry;

use crate::cluster::slurm::Options;
use crate::cluster::{Duty, Submission};

/// Spread a run over a Slurm cluster, or over the GPUs of one machine
///
/// A run is cut into stages (fetch, the measuring of heads, the choosing of settings, the matrix, the report) and each of them into
/// tasks, which are array tasks of Slurm's: what a task does follows from its index, and Slurm decides who does it where, and again after
/// a node was lost. Results do not depend on how many tasks there are. The run's folder has to lie where all nodes see it; what
/// is submitted, what tasks said and how they ended lies in FOLDER/NAME/cluster.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cokv cluster submit --config run.toml --tasks 64 --at-once 8 \\
      --partition gpu --gpus-per-task 1 --time 2:00:00 --sbatch account=physics
  cokv cluster status runs/run
  cokv cluster resubmit runs/run             # what is missing, once what was wrong is mended
  cokv cluster submit --config run.toml --dry-run     # all scripts, and nothing submitted
  cokv cluster submit --config run.toml --workers 4   # four processes of this machine, one for each GPU

Kubernetes and PBS run the same tasks: configs/clusters/ has their files, docs/clusters.md the rest.")]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Submit(SubmitArguments),
    Prepare(Prepare),
    Status(StatusArguments),
    Resubmit(ResubmitArguments),
    Cancel(Cancel),
    Work(WorkArguments),
}

/// Write the scripts and submit them, each stage behind the one before
#[derive(clap::Args)]
struct SubmitArguments {
    #[command(flatten)]
    of: Prepare,
    /// Tasks that may run at the same time, of which there are more than nodes
    #[arg(long, value_name = "LIMIT")]
    at_once: Option<NonZeroU64>,
    #[command(flatten)]
    slurm: Options,
    #[command(flatten)]
    how: How,
}

/// Only write what tasks need, for a cluster that is not Slurm's
#[derive(clap::Args)]
struct Prepare {
    /// The TOML file that describes the run
    #[arg(long, default_value = "cokv.toml")]
    config: PathBuf,
    /// Tasks of every stage that is shared: many more than nodes, so that a slow node holds nothing up, and few enough for a task
    /// to take minutes, beside which loading the model does not count. Default: 32, or one for each worker
    #[arg(long)]
    tasks: Option<NonZeroU64>,
}

/// How tasks are run.
#[derive(clap::Args)]
struct How {
    /// Run the tasks on this machine, in so many processes: one for each GPU of CUDA_VISIBLE_DEVICES, or of the machine; or on the
    /// processor, of which each gets a share
    #[arg(long, value_name = "PROCESSES")]
    workers: Option<NonZeroU64>,
    /// Print all scripts and command lines, and write and submit nothing
    #[arg(long, conflicts_with = "workers")]
    dry_run: bool,
}

/// Say how a run goes: what is done, what runs where, what failed with the last lines of its log, and how long it still takes
#[derive(clap::Args)]
struct StatusArguments {
    /// The run's folder
    run: PathBuf,
    /// Tell a program
    #[arg(long)]
    json: bool,
}

/// Submit what is missing of a run again, with the options that it was submitted with
#[derive(clap::Args)]
struct ResubmitArguments {
    /// The run's folder
    run: PathBuf,
    /// All tasks, those too that said they were done: rows that are there are not made again
    #[arg(long)]
    all: bool,
    /// Tasks that may run at the same time, where that is not as many as before
    #[arg(long, value_name = "LIMIT")]
    at_once: Option<NonZeroU64>,
    #[command(flatten)]
    how: How,
}

/// End a run's tasks, those that run and those that wait; what they did stays
#[derive(clap::Args)]
struct Cancel {
    /// The run's folder
    run: PathBuf,
}

/// Do one task: what the scripts run
///
/// Told to stop (SIGTERM, SIGINT, or SIGUSR1), it finishes its prompt and exits with 75, which means that the same task has to run
/// again. 0: all of it is done. Anything else: it failed.
#[derive(clap::Args)]
struct WorkArguments {
    /// The run's folder
    #[arg(long)]
    run: PathBuf,
    /// Which stage: RUN/cluster/submission.json lists them
    #[arg(long)]
    stage: Duty,
    /// Which task of it, counted from 0; without it, what SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX (Kubernetes) or
    /// PBS_ARRAY_INDEX says
    #[arg(long)]
    index: Option<u64>,
}

pub fn run(arguments: &Arguments, registry: &Registry) -> Result<()> {
    match &arguments.verb {
        Verb::Submit(arguments) => submit::submit(arguments, registry),
        Verb::Prepare(arguments) => submit::prepare(arguments, registry),
        Verb::Status(arguments) => status::status(arguments),
        Verb::Resubmit(arguments) => submit::resubmit(arguments),
        Verb::Cancel(arguments) => submit::cancel(arguments),
        Verb::Work(arguments) => work::work(arguments, registry),
    }
}

/// A run's folder by a name that does not depend on where the program runs, and what was submitted of it.
fn submitted(run: &Path) -> Result<(PathBuf, Submission)> {
    let run = std::path::absolute(run).with_context(|| run.display().to_string())?;
    let submission = Submission::read(&run)?;
    Ok((run, submission))
}
