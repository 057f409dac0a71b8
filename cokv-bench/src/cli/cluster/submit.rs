//! `cokv cluster submit`, `prepare`, `resubmit` and `cancel`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cokv_core::Registry;
use cokv_shapley::lock::{Lock, Means, Mode};

use super::local::local;
use super::{Cancel, Prepare, ResubmitArguments, SubmitArguments, submitted};
use crate::cli::output::print;
use crate::cli::ready::read;
use crate::cluster::slurm::{self, Job, Options, Queue, quoted};
use crate::cluster::submission::Submitting;
use crate::cluster::{ClusterError, FOLDER, Stage, Submission, Task};
use crate::config::Config;
use crate::run::origin;

/// Tasks of a stage where nobody says how many.
const TASKS: u64 = 32;

/// A run that is about to be submitted.
struct Draft {
    config: Config,
    text: String,
    submission: Submission,
}

fn draft(of: &Prepare, workers: Option<u64>, at_once: Option<u64>, registry: &Registry) -> Result<Draft> {
    let (text, config) = read(&of.config, registry)?;
    origin::check(&config.folder(), &of.config, &text)?;
    let tasks = of.tasks.map(u64::from).or(workers).unwrap_or(TASKS);
    let submission = Submission::of(&config, &of.config, tasks, at_once)?;
    Ok(Draft { config, text, submission })
}

pub fn submit(arguments: &SubmitArguments, registry: &Registry) -> Result<()> {
    let SubmitArguments { of, slurm: options, how, .. } = arguments;
    let workers = how.workers.map(u64::from);
    let Draft { config, text, submission } = draft(of, workers, arguments.at_once.map(u64::from), registry)?;
    let run = std::path::absolute(config.folder())?;
    let scripts = scripts(&run, &submission, options)?;
    if how.dry_run {
        return show(&run, &submission, &scripts);
    }
    let submitting = Submitting::begin(&run)?;
    refuse_queued(&run)?;
    let _alone = alone(&run)?;
    if workers.is_none() {
        // What is wrong with the cluster is found out before anything is written.
        match &options.partition {
            Some(partition) => slurm::check_partition(partition)?,
            None => slurm::check()?,
        }
    }
    submission.write(&run, &text)?;
    slurm::keep_jobs(&run, &[])?;
    write(&run, &scripts)?;
    match workers {
        Some(workers) => {
            drop(submitting);
            local(&run, &submission, workers as usize, false)
        }
        None => to_slurm(&run, &submission, |stage| stage.all().collect(), None),
    }
}

pub fn prepare(arguments: &Prepare, registry: &Registry) -> Result<()> {
    let Draft { config, text, submission } = draft(arguments, None, None, registry)?;
    let run = std::path::absolute(config.folder())?;
    let _submitting = Submitting::begin(&run)?;
    refuse_queued(&run)?;
    let _alone = alone(&run)?;
    submission.write(&run, &text)?;
    let stages = submission.stages.iter().map(|stage| format!("{} {}", stage.duty, stage.tasks)).collect::<Vec<_>>();
    print(&stages.join("\n"))?;
    eprintln!(
        "each of these stages, with the number of its tasks, after the one before: cokv cluster work --run {} --stage STAGE",
        quoted(&run.display().to_string())
    );
    Ok(())
}

pub fn resubmit(arguments: &ResubmitArguments) -> Result<()> {
    let ResubmitArguments { run, all, at_once, how } = arguments;
    let at_once = at_once.map(u64::from);
    let (run, submission) = submitted(run)?;
    // On this machine too: tasks run another program by now.
    submission.check_build()?;
    if submission.is_changed(&run) {
        eprintln!(
            "note: {} has changed since it was submitted, and what is missing is made as it was then; cokv cluster submit takes it as it \
             is now",
            submission.configuration.display()
        );
    }
    let submitting = if how.dry_run { None } else { Some(Submitting::begin(&run)?) };
    refuse_queued(&run)?;
    let _alone = alone(&run)?;
    let cluster = run.join(FOLDER);
    let mut missing: Vec<Task> = Vec::new();
    for stage in &submission.stages {
        // What comes behind tasks that are made again is made again.
        let again = *all || stage.tasks == 1 && !missing.is_empty();
        missing.extend(if again { stage.all().collect() } else { stage.missing(&cluster)? });
    }
    if missing.is_empty() {
        return print("nothing is missing");
    }
    let of = |stage: Stage| missing.iter().copied().filter(|task| task.duty == stage.duty).collect::<Vec<_>>();
    match (how.dry_run, how.workers) {
        (true, _) => {
            let lines = submission.stages.iter().filter(|stage| !of(**stage).is_empty());
            let indices = |stage: &Stage| of(*stage).iter().map(|task| task.index).collect::<Vec<_>>();
            let line = |stage: &Stage| {
                command(&run, *stage, Some(&indices(stage)), Some("JOB"), at_once.or(submission.at_once))
            };
            print(&lines.map(line).collect::<Vec<_>>().join("\n"))
        }
        (_, Some(workers)) => {
            drop(submitting);
            local(&run, &submission, u64::from(workers) as usize, *all)
        }
        (_, None) => {
            slurm::check()?;
            to_slurm(&run, &submission, of, at_once)
        }
    }
}

pub fn cancel(arguments: &Cancel) -> Result<()> {
    let (run, _) = submitted(&arguments.run)?;
    let jobs = slurm::jobs(&run)?;
    if jobs.is_empty() {
        bail!("{} was not submitted to Slurm", run.display());
    }
    slurm::cancel(&jobs)?;
    print(&format!("cancelled; what was done stays, and cokv cluster resubmit {} goes on", run.display()))
}

/// Refuses a run that has tasks in Slurm's queue.
fn refuse_queued(run: &Path) -> Result<()> {
    let jobs = slurm::jobs(run)?;
    let queue = match Queue::ask(&jobs) {
        // On a machine without Slurm its queue is another's: the folder was taken elsewhere.
        Err(ClusterError::NoSlurm { .. }) => return Ok(()),
        queue => queue?,
    };
    let living = queue.living(&jobs);
    if living.is_empty() {
        return Ok(());
    }
    let jobs = living.iter().map(|job| job.id.as_str()).collect::<Vec<_>>().join(", ");
    Err(ClusterError::Queued { jobs, run: run.display().to_string() }.into())
}

/// Refuses a run whose tasks other processes of this machine run, and keeps others away while they do. The system's own lock is
/// enough: it goes with its process.
fn alone(run: &Path) -> Result<Lock> {
    Lock::take(&run.join(FOLDER).join("workers"), Mode::Exclusive, Means::Best).context("its tasks run on this machine")
}

/// A script for each stage.
fn scripts(run: &Path, submission: &Submission, options: &Options) -> Result<Vec<(Stage, String)>> {
    let of = |stage: &Stage| Ok((*stage, slurm::script(run, submission, *stage, options)?));
    submission.stages.iter().map(of).collect()
}

fn write(run: &Path, scripts: &[(Stage, String)]) -> Result<()> {
    scripts.iter().try_for_each(|(stage, script)| {
        let path = run.join(FOLDER).join(format!("{}.sbatch", stage.duty));
        cokv_shapley::whole::write(&path, script).with_context(|| path.display().to_string())
    })
}

/// Prints what would be submitted.
fn show(run: &Path, submission: &Submission, scripts: &[(Stage, String)]) -> Result<()> {
    let folder = run.join(FOLDER);
    for (stage, script) in scripts {
        print(&format!("── {}/{}.sbatch\n{script}", folder.display(), stage.duty))?;
    }
    let after = |at: usize| (at > 0).then(|| format!("JOB{at}"));
    let lines =
        submission.stages.iter().enumerate().map(|(at, stage)| command(run, *stage, None, after(at).as_deref(), None));
    print(&lines.collect::<Vec<_>>().join("\n"))
}

fn command(run: &Path, stage: Stage, indices: Option<&[u64]>, after: Option<&str>, at_once: Option<u64>) -> String {
    let arguments = slurm::submission(run, stage, indices, after, at_once);
    let words: Vec<String> = arguments.iter().map(|argument| quoted(argument)).collect();
    format!("sbatch {}", words.join(" "))
}

/// Submits tasks of all stages, each stage behind the one before; `at_once` of them, where that is not what was said before. Where one is refused, those before it are taken back.
fn to_slurm(
    run: &Path,
    submission: &Submission,
    tasks: impl Fn(Stage) -> Vec<Task>,
    at_once: Option<u64>,
) -> Result<()> {
    let mut jobs: Vec<Job> = Vec::new();
    for stage in &submission.stages {
        let indices: Vec<u64> = tasks(*stage).iter().map(|task| task.index).collect();
        if indices.is_empty() {
            continue;
        }
        // The script says it for all tasks of the stage.
        let listed = (indices.len() as u64 != stage.tasks || at_once.is_some()).then_some(&indices[..]);
        let after = jobs.last().map(|job| job.id.as_str());
        match slurm::sbatch(&slurm::submission(run, *stage, listed, after, at_once.or(submission.at_once))) {
            Ok(id) => jobs.push(Job { duty: stage.duty, id }),
            Err(error) => {
                // Why it was refused is worth more than whether the others could be taken back.
                let _ = slurm::cancel(&jobs);
                return Err(error).with_context(|| format!("stage {}; nothing stays submitted", stage.duty));
            }
        }
        // At once: whoever looks meanwhile sees what there is.
        slurm::keep_jobs(run, &jobs)?;
    }
    let said = jobs.iter().map(|job| format!("{:>12}  {}", job.id, job.duty)).collect::<Vec<_>>();
    print(&said.join("\n"))?;
    eprintln!("cokv cluster status {} says how it goes", quoted(&run.display().to_string()));
    Ok(())
}
