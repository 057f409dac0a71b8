//! What Slurm says of the tasks of some jobs: its queue, and where a cluster keeps accounts, those.

use std::collections::HashMap;

use super::{Job, said};
use crate::cluster::error::ClusterError;
use crate::cluster::task::Task;

/// A task that waits or runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InQueue {
    /// Whether it runs; else it waits.
    pub runs: bool,
    /// The nodes that it runs on, or why it waits.
    pub place: String,
    /// How long it has been running, as Slurm writes it.
    pub elapsed: String,
}

/// What Slurm knows.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    /// Tasks that wait or run.
    pub tasks: HashMap<Task, InQueue>,
    /// How tasks ended that did not end well, in Slurm's words; of a cluster that keeps no accounts, those of the last minutes.
    pub ended: HashMap<Task, String>,
    /// Whether Slurm was asked: what is not in the queue then does not run.
    pub was_asked: bool,
}

impl Queue {
    /// Asks Slurm about jobs.
    ///
    /// # Errors
    /// [`ClusterError::NoSlurm`] where there is none, [`ClusterError::Slurm`] where it does not answer.
    pub fn ask(jobs: &[Job]) -> Result<Self, ClusterError> {
        if jobs.is_empty() {
            return Ok(Self::default());
        }
        let listed = format!("--jobs={}", jobs.iter().map(|job| job.id.as_str()).collect::<Vec<_>>().join(","));
        let queue = said(
            "squeue",
            &[
                "--noheader".into(),
                "--array".into(),
                "--states=all".into(),
                listed.clone(),
                "--format=%F|%K|%T|%N|%M|%r".into(),
            ],
        );
        let queue = match queue {
            // One that ended some minutes ago is no job any more.
            Err(ClusterError::Slurm { message, .. }) if message.contains("Invalid job id") => String::new(),
            queue => queue?,
        };
        let accounts = said(
            "sacct",
            &["--noheader".into(), "--parsable2".into(), "--allocations".into(), listed, "--format=JobID,State".into()],
        );
        // A cluster without accounts says so by failing.
        let mut ended = ended_lately(jobs, &queue);
        ended.extend(badly_ended(jobs, &accounts.unwrap_or_default()));
        Ok(Self { tasks: queued(jobs, &queue), ended, was_asked: true })
    }

    /// Jobs that have tasks which wait or run.
    pub fn living<'a>(&self, jobs: &'a [Job]) -> Vec<&'a Job> {
        jobs.iter().filter(|job| self.tasks.keys().any(|task| task.duty == job.duty)).collect()
    }
}

fn task(jobs: &[Job], id: &str, index: &str) -> Option<Task> {
    let job = jobs.iter().find(|job| job.id == id)?;
    Some(Task { duty: job.duty, index: index.parse().ok()? })
}

fn queued(jobs: &[Job], lines: &str) -> HashMap<Task, InQueue> {
    let read = |line: &str| {
        let [id, index, state, nodes, elapsed, reason] = line.trim().split('|').collect::<Vec<_>>().try_into().ok()?;
        // One that is just ending still runs, and one that is being requeued waits.
        let runs = matches!(state, "RUNNING" | "COMPLETING" | "CONFIGURING" | "SUSPENDED" | "STOPPED" | "SIGNALING");
        let waits = matches!(state, "PENDING" | "REQUEUED" | "REQUEUE_HOLD" | "REQUEUE_FED" | "SPECIAL_EXIT");
        let place = if runs { nodes } else { reason };
        let known = InQueue { runs, place: place.into(), elapsed: elapsed.into() };
        (runs || waits).then_some(()).and(Some((task(jobs, id, index)?, known)))
    };
    lines.lines().filter_map(read).collect()
}

fn ended_lately(jobs: &[Job], lines: &str) -> HashMap<Task, String> {
    let read = |line: &str| {
        let [id, index, state, ..] = line.trim().split('|').collect::<Vec<_>>()[..] else { return None };
        is_bad(state).then_some(()).and(Some((task(jobs, id, index)?, state.to_owned())))
    };
    lines.lines().filter_map(read).collect()
}

/// Whether a state is an end, and not a good one.
fn is_bad(state: &str) -> bool {
    let bad = ["FAILED", "TIMEOUT", "CANCELLED", "NODE_FAIL", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE", "PREEMPTED"];
    bad.iter().any(|bad| state.starts_with(bad))
}

fn badly_ended(jobs: &[Job], lines: &str) -> HashMap<Task, String> {
    let read = |line: &str| {
        let (id, state) = line.trim().split_once('|')?;
        let (id, index) = id.split_once('_')?;
        is_bad(state).then_some(()).and(Some((task(jobs, id, index)?, state.to_owned())))
    };
    // The last line of a task is of its last run.
    lines.lines().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::stages::Duty;

    #[test]
    fn what_slurm_says_is_read() {
        let jobs = [Job { duty: Duty::Matrix, id: "7".into() }, Job { duty: Duty::Report, id: "8".into() }];
        let said = "7|3|RUNNING|n2|1:02|None\n7|4|PENDING||0:00|JobArrayTaskLimit\n7|5|COMPLETED|n1|0:10|None\n\
                    9|0|RUNNING|n1|0:01|None\n8|0|PENDING||0:00|Dependency\nnonsense\n";
        let queue = queued(&jobs, said);
        let of = |duty, index| queue.get(&Task { duty, index });
        let running = InQueue { runs: true, place: "n2".into(), elapsed: "1:02".into() };
        assert_eq!((queue.len(), of(Duty::Matrix, 3)), (3, Some(&running)));
        assert_eq!(of(Duty::Report, 0).map(|task| (task.runs, task.place.as_str())), Some((false, "Dependency")));
        assert!(ended_lately(&jobs, said).is_empty());
        let ended = ended_lately(&jobs, "7|4|NODE_FAIL|n1|0:05|None\n");
        assert_eq!(ended.get(&Task { duty: Duty::Matrix, index: 4 }).map(String::as_str), Some("NODE_FAIL"));
        let ended = badly_ended(&jobs, "7_3|COMPLETED\n7_4|TIMEOUT\n7_5|CANCELLED by 0\n7_[6-9]|PENDING\n");
        assert_eq!(ended.get(&Task { duty: Duty::Matrix, index: 4 }).map(String::as_str), Some("TIMEOUT"));
        assert_eq!(ended.len(), 2);
    }
}
