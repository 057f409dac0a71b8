//! `cokv cluster status`

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use indicatif::HumanDuration;

use super::{StatusArguments, submitted};
use crate::cli::output::print;
use crate::cluster::slurm::{Queue, jobs, quoted};
use crate::cluster::status::{StageStatus, Status, TaskState, state};
use crate::cluster::{FOLDER, Task};
use crate::machine::memory::{free_disk_bytes, mebibytes};

/// Bytes of a disk that is as good as full.
const LITTLE: u64 = 1 << 20;

/// Failed tasks of a stage that are shown.
const SHOWN: usize = 3;

pub fn status(arguments: &StatusArguments) -> Result<()> {
    let (run, submission) = submitted(&arguments.run)?;
    let queue = match Queue::ask(&jobs(&run)?) {
        // What was done is there without Slurm too.
        Err(error) => {
            eprintln!("note: {error}");
            Queue::default()
        }
        Ok(queue) => queue,
    };
    let status = Status::of(&run, &submission, &queue)?;
    if arguments.json {
        return print(&serde_json::to_string(&status)?);
    }
    let mut lines: Vec<String> = status.stages.iter().flat_map(of_stage).collect();
    if status.all_rows > 0 {
        lines.push(format!("{} of {} rows", status.rows, status.all_rows));
    }
    if submission.is_changed(&run) {
        lines.push(format!(
            "note: {} has changed since; tasks go on with what was submitted",
            submission.configuration.display()
        ));
    }
    let free = free_disk_bytes(&run).filter(|&free| free < LITTLE);
    // A task that fails for it cannot write down why.
    lines.extend(free.map(|free| {
        format!("the disk of {} is full: {} are left; make room, then resubmit", run.display(), mebibytes(free))
    }));
    let is_failed = |stage: &StageStatus| stage.tasks.iter().any(|task| matches!(task, TaskState::Failed { .. }));
    if status.stages.iter().any(is_failed) {
        lines.push(format!("cokv cluster resubmit {} runs again what failed", quoted(&run.display().to_string())));
    }
    print(&lines.join("\n"))
}

/// A line of a stage, and some of its tasks that failed.
fn of_stage(stage: &StageStatus) -> Vec<String> {
    let mut line = format!("{:<12} {:>4} of {} done", stage.duty.to_string(), stage.done(), stage.tasks.len());
    let mut running: Vec<String> = Vec::new();
    let (mut waiting, mut failed, mut open) = (Vec::new(), Vec::new(), 0);
    for (index, task) in stage.tasks.iter().enumerate() {
        match task {
            TaskState::Running { node, elapsed } => running.push(format!("{index} on {node} ({elapsed})")),
            TaskState::Waiting { reason } => waiting.push(reason),
            TaskState::Failed { why, lines } => failed.push((index, why, lines)),
            TaskState::Open => open += 1,
            TaskState::Done => {}
        }
    }
    if !running.is_empty() {
        line += &format!("; running: {}", running.join(", "));
    }
    if let Some(reason) = waiting.first() {
        line += &format!("; {} waiting ({reason})", waiting.len());
    }
    if open > 0 {
        line += &format!("; {open} not begun");
    }
    if !failed.is_empty() {
        line += &format!("; {} failed", failed.len());
    }
    if let Some(left) = stage.seconds_left.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        line += &format!("; about {} left", HumanDuration(left));
    }
    let shown = failed.iter().take(SHOWN).flat_map(|(index, why, lines)| {
        let lines = lines.iter().map(|line| format!("      {line}"));
        std::iter::once(format!("    {}-{index}: {why}", stage.duty)).chain(lines)
    });
    let more = failed.len().saturating_sub(SHOWN);
    let more = (more > 0).then(|| format!("    and {more} more"));
    std::iter::once(line).chain(shown).chain(more).collect()
}

/// Why a task of this machine failed.
pub fn why(run: &Path, task: Task) -> Result<String> {
    Ok(match state(&run.join(FOLDER), task, &Queue::default())? {
        TaskState::Failed { why, .. } => why,
        _ => format!("it was killed; {} says more", task.log(&run.join(FOLDER)).display()),
    })
}
