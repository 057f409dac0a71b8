//! `cokv cluster work`: one task.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use cokv_core::{Registry, Shard};
use cokv_shapley::lock::Holder;

use super::{WorkArguments, submitted};
use crate::cli::bench::{Part, conclude};
use crate::cli::forecast::beside_study;
use crate::cli::interrupt::Interrupt;
use crate::cli::load::load;
use crate::cli::measure::Unmeasured;
use crate::cli::mode::Mode;
use crate::cli::progress::Audience;
use crate::cli::ready::ready;
use crate::cli::select::{SWEEP, Swept, on_validation, sweep_part};
use crate::cli::stopped::is_stopped;
use crate::cluster::stages::shares;
use crate::cluster::{AGAIN, Duty, FOLDER, Submission, Task, TaskEnd};
use crate::config::Config;
use crate::model::Loaded;
use crate::run::{Manifest, Results};

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
        Duty::Calibrate { wave } => calibrate(&config, shard, wave),
        Duty::Scores => scores(&config),
        Duty::Select => {
            let part = part(submission, &text, shard);
            let ready = on_validation(config, &part)?;
            ready.check_measured()?;
            sweep_part(&part, ready).map(drop)
        }
        Duty::Choose => {
            let ready = on_validation(config, &part(submission, &text, shard))?;
            Swept::of(ready)?.choose(&Results::read(&run.join(SWEEP))?, Audience::People)
        }
    }
}

/// Everything that can be found out without a model's weights in memory: what is wrong is wrong before any node computes.
fn fetch(config: &Config) -> Result<()> {
    config.of_models().try_for_each(|config| ready(config, QUIETLY).map(drop))
}

const QUIETLY: Mode = Mode { plan: false, choosing: false, quiet: true };

/// Measures a share of the heads' worth, into files of this process's own.
fn calibrate(config: &Config, shard: Shard, wave: u32) -> Result<()> {
    config.of_models().try_for_each(|config| {
        let mut ready = ready(config, QUIETLY)?;
        let tables = ready.tables();
        let mut mine = Vec::new();
        for (table, shard) in shares(tables.len(), shard) {
            let unmeasured = ready.unmeasured.extract_if(.., |unmeasured| *unmeasured.key() == tables[table]).next();
            mine.extend(unmeasured.map(|unmeasured| unmeasured.share(shard, wave)).transpose()?.flatten());
        }
        let beside = mine.iter().map(|share| beside_study(&share.work)).max_by_key(|beside| beside.bytes);
        // No model is loaded for nothing.
        let Some(beside) = beside else { return Ok(()) };
        let Loaded { model, .. } = load(&ready.model, &beside)?;
        mine.iter().try_for_each(|share| share.measure(&model))
    })
}

/// Makes scores of what all tasks have measured, and measures what is still missing.
fn scores(config: &Config) -> Result<()> {
    config.of_models().try_for_each(|config| {
        let mut ready = ready(config, QUIETLY)?;
        ready.unmeasured.iter().try_for_each(Unmeasured::join)?;
        let works = ready.unmeasured.iter().map(|unmeasured| unmeasured.work(None)).collect::<Result<Vec<_>>>()?;
        let beside = works.iter().map(beside_study).max_by_key(|beside| beside.bytes);
        let Some(beside) = beside else { return Ok(()) };
        let Loaded { model, .. } = load(&ready.model, &beside)?;
        ready.measure(&model)
    })
}

fn matrix(config: &Config, submission: &Submission, text: &str, shard: Shard) -> Result<()> {
    part(submission, text, shard).rows(config).map(drop)
}

fn part<'a>(submission: &'a Submission, text: &'a str, shard: Shard) -> Part<'a> {
    let (configuration, audience) = (&submission.configuration, Audience::People);
    Part { configuration, text, shard, plan: false, audience, is_task: true }
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
