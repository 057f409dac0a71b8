//! Tasks on this machine.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Instant;

use anyhow::{Result, bail};

use super::status::why;
use crate::cli::interrupt::Interrupt;
use crate::cli::stopped::Stopped;
use crate::cluster::slurm::quoted;
use crate::cluster::workers::{StageEnd, Workers, gpus};
use crate::cluster::{FOLDER, Submission, Task};

/// Runs what is missing of a run, or all of it, stage by stage.
pub fn local(run: &Path, submission: &Submission, count: usize, all: bool) -> Result<()> {
    let started = Instant::now();
    let (interrupt, cluster) = (Interrupt::hear()?, run.join(FOLDER));
    interrupt.working(true);
    let stopped = || interrupt.asked();
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let threads = (cokv_models::threads() / count).max(1);
    let workers = Workers { run, submission, count, gpus: gpus(visible.as_deref()), threads, stopped: &stopped };
    let again = format!("cokv cluster resubmit {} --workers {count}", quoted(&run.display().to_string()));
    for stage in &submission.stages {
        let tasks = if all || stage.tasks == 1 { stage.all().collect() } else { stage.missing(&cluster)? };
        eprintln!("{}: {} of {} tasks to do", stage.duty, tasks.len(), stage.tasks);
        let StageEnd { failed, stopped } = workers.run(tasks, &|task, status| tell(task, status, started))?;
        if stopped {
            return Err(Stopped(format!("stopped; {again} goes on")).into());
        }
        if let Some(task) = failed.first() {
            let (others, why) = (failed.len() - 1, why(run, *task)?);
            bail!("{task} failed, and {others} others: {why}; once that is mended, {again} goes on");
        }
    }
    eprintln!("{:.1} s; report in {}", started.elapsed().as_secs_f64(), run.join("report/index.html").display());
    Ok(())
}

fn tell(task: Task, status: ExitStatus, started: Instant) {
    let how = if status.success() { "done".to_owned() } else { status.to_string() };
    eprintln!("{task} {how}, {:.1} s gone", started.elapsed().as_secs_f64());
}
