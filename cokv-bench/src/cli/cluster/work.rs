//! `cokv cluster work`: one task.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use cokv_core::{Registry, Shard};
use cokv_shapley::lock::Holder;

use super::{WorkArguments, submitted};
use crate::cli::bench::{Part, conclude};
use crate::cli::interrupt::Interrupt;
use crate::cli::mode::Mode;
use crate::cli::progress::Audience;
use crate::cli::ready::ready;
use crate::cli::stopped::is_stopped;
use crate::cluster::{AGAIN, Duty, FOLDER, Submission, Task, TaskEnd};
use crate::config::Config;
use crate::run::Manifest;

/// Who says which task of an array a process is: Slurm, Kubernetes, PBS.
const INDICES: [&str; 3] = ["SLURM_ARRAY_TASK_ID", "JOB_COMPLETION_INDEX", "PBS_ARRAY_INDEX"];

pub fn work(arguments: &WorkArguments, registry: &Registry) -> Result<()> {
    let started = Instant::now();
    // Before anything takes long: a task that is told to stop while it loads its model has to run again too.
    Interrupt::hear_as_task(AGAIN)?;
    let task = Task { duty: arguments.stage, index: index(arguments.index)? };
    let (run, submission) = submitted(&arguments.run)?;
    let (cluster, host) = (run.join(FOLDER), Holder::this().host);
    eprintln!("{task} on {host}");
    let done = one(&run, &submission, task, registry);
    let end = match &done {
        Ok(()) => TaskEnd::Done { host, seconds: started.elapsed().as_secs_f64() },
        Err(error) if is_stopped(error) => return done,
        Err(error) => TaskEnd::Failed { host, message: format!("{error:#}") },
    };
    let written = task.ended(&cluster, &end);
    // Why the task failed is worth more than why that could not be written down.
    done.and(written.map_err(Into::into))
}

fn index(given: Option<u64>) -> Result<u64> {
    let of = |name: &str| std::env::var(name).ok().map(|text| (name.to_owned(), text));
    match (given, INDICES.iter().find_map(|name| of(name))) {
        (Some(index), _) => Ok(index),
        (None, Some((name, text))) => text.parse().with_context(|| format!("{name}={text}: no index")),
        (None, None) => bail!("which task is it? Give --index, or set one of {}", INDICES.join(", ")),
    }
}

fn one(run: &Path, submission: &Submission, task: Task, registry: &Registry) -> Result<()> {
    submission.check_build()?;
    let shard = submission.shard(task)?;
    std::env::set_current_dir(&submission.directory).with_context(|| {
        format!(
            "{}: the run was submitted there, and what the configuration names lies there",
            submission.directory.display()
        )
    })?;
    let text = submission.text(run)?;
    let config = submission.config(&text, registry)?;
    let is_ours = config.folder().canonicalize().ok() == run.canonicalize().ok();
    if !is_ours {
        return Err(anyhow!(
            "{} is not the folder of this configuration here, which is {}: submit the run where its tasks will see it under the same \
             name",
            run.display(),
            config.folder().display()
        ));
    }
    match task.duty {
        Duty::Fetch => fetch(&config),
        Duty::Matrix => matrix(&config, submission, &text, shard),
        Duty::Report => report(&config, run),
        Duty::Calibrate { .. } | Duty::Scores | Duty::Select | Duty::Choose => bail!("not there yet"),
    }
}

/// Everything that can be found out without a model's weights in memory: what is wrong is wrong before any node computes.
fn fetch(config: &Config) -> Result<()> {
    for_each_model(config, |config| ready(config, Mode { plan: false, choosing: false, quiet: true }).map(drop))
}

fn for_each_model(config: &Config, mut one: impl FnMut(Config) -> Result<()>) -> Result<()> {
    config.models.iter().try_for_each(|model| {
        let mut config = config.clone();
        config.run.model = model.clone();
        one(config)
    })
}

fn matrix(config: &Config, submission: &Submission, text: &str, shard: Shard) -> Result<()> {
    let (configuration, audience) = (&submission.configuration, Audience::People);
    Part { configuration, text, shard, plan: false, audience, is_task: true }.rows(config).map(drop)
}

fn report(config: &Config, run: &Path) -> Result<()> {
    match conclude(config, &Manifest::read(run)?, Audience::People)? {
        0 => Ok(()),
        missing => bail!(
            "{missing} rows are missing: cokv cluster resubmit {} runs what is not done, and with --all everything that left rows out",
            run.display()
        ),
    }
}
