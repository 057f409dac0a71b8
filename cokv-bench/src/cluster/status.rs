//! How a run goes: what Slurm says of its tasks, what they wrote when they ended, and the rows that are there.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::error::ClusterError;
use super::slurm::Queue;
use super::stages::{Duty, Stage};
use super::submission::{FOLDER, Submission};
use super::task::{Task, TaskEnd};
use crate::run::{Manifest, Results, StoreError};

/// Lines of a log that say why a task failed.
const LAST_LINES: usize = 3;

/// What has become of a task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum TaskState {
    /// It is done.
    Done,
    /// It runs.
    Running {
        /// Where.
        node: String,
        /// For how long, as Slurm writes it.
        elapsed: String,
    },
    /// It is in the queue.
    Waiting {
        /// Why, in Slurm's words.
        reason: String,
    },
    /// It ended without being done, and is not in the queue.
    Failed {
        /// Why.
        why: String,
        /// The last lines of its log.
        lines: Vec<String>,
    },
    /// It was never begun, or runs where nobody can be asked.
    Open,
}

/// How a stage goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageStatus {
    /// What its tasks do.
    pub duty: Duty,
    /// One for each task.
    pub tasks: Vec<TaskState>,
}

/// How a run goes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// In their order.
    pub stages: Vec<StageStatus>,
    /// Rows of the configuration that are there.
    pub rows: usize,
    /// Rows of the configuration; 0 until a task of the matrix has found out.
    pub all_rows: usize,
    /// About how many seconds the matrix still takes, by the rows that are there and the tasks that run; none where either is
    /// not known.
    pub seconds_left: Option<f64>,
}

impl StageStatus {
    /// Tasks that are done.
    pub fn done(&self) -> usize {
        self.tasks.iter().filter(|task| **task == TaskState::Done).count()
    }

    /// Tasks that run.
    pub fn running(&self) -> usize {
        self.tasks.iter().filter(|task| matches!(task, TaskState::Running { .. })).count()
    }
}

impl Status {
    /// Finds out how the run in a folder goes, with what its queue says.
    ///
    /// # Errors
    /// A file of the run cannot be read.
    pub fn of(run: &Path, submission: &Submission, queue: &Queue) -> Result<Self, StatusError> {
        let cluster = run.join(FOLDER);
        let of_stage = |stage: &Stage| -> Result<StageStatus, ClusterError> {
            let tasks = stage.all().map(|task| state(&cluster, task, queue)).collect::<Result<_, _>>()?;
            Ok(StageStatus { duty: stage.duty, tasks })
        };
        let stages = submission.stages.iter().map(of_stage).collect::<Result<Vec<_>, _>>()?;
        let (results, manifests) = (Results::read(run)?, Manifest::read(run)?);
        let rows = manifests.iter().flat_map(|manifest| &manifest.rows);
        let all_rows = rows.clone().count();
        let seconds: Vec<f64> = rows.filter_map(|row| results.row(row)).map(|row| row.seconds()).collect();
        let at_work = stages.iter().find(|stage| stage.duty == Duty::Matrix).map_or(0, StageStatus::running);
        let each = seconds.iter().sum::<f64>() / seconds.len() as f64;
        let left = (all_rows - seconds.len()) as f64 * each / at_work as f64;
        Ok(Self { stages, rows: seconds.len(), all_rows, seconds_left: Some(left).filter(|left| left.is_finite()) })
    }
}

/// Why it cannot be found out how a run goes.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// What tasks wrote cannot be read.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The rows cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What has become of a task, by the queue and what it wrote into `cluster`.
pub fn state(cluster: &Path, task: Task, queue: &Queue) -> Result<TaskState, ClusterError> {
    if let Some(known) = queue.tasks.get(&task) {
        let place = known.place.clone();
        return Ok(match known.runs {
            true => TaskState::Running { node: place, elapsed: known.elapsed.clone() },
            false => TaskState::Waiting { reason: place },
        });
    }
    let (end, log) = (task.end(cluster)?, fs::read(task.log(cluster)).ok());
    let failed = |why: String| TaskState::Failed { why, lines: last_lines(log.as_deref().unwrap_or_default()) };
    Ok(match (end, queue.ended.get(&task)) {
        (Some(TaskEnd::Done { .. }), _) => TaskState::Done,
        (Some(TaskEnd::Failed { host, message }), _) => failed(format!("on {host}: {message}")),
        // What waited for a stage that failed was cancelled before it began.
        (None, Some(state)) if log.is_none() && state.starts_with("CANCELLED") => TaskState::Open,
        (None, Some(state)) if log.is_none() => failed(format!(
            "{state}, and no log of it: does the node see {}? The folder of a run must lie on the cluster's shared file system",
            cluster.display()
        )),
        (None, Some(state)) => failed(state.clone()),
        // One that had begun, runs nowhere, and did not say how it ended.
        (None, None) if queue.was_asked && log.is_some() => failed("killed or cancelled".into()),
        (None, None) => TaskState::Open,
    })
}

/// The last lines that are not blank.
fn last_lines(log: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(log);
    let mut lines: Vec<String> =
        text.lines().rev().filter(|line| !line.trim().is_empty()).take(LAST_LINES).map(str::to_owned).collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::slurm::InQueue;

    #[test]
    fn a_task_is_what_the_queue_says_then_what_it_wrote_then_what_accounts_say() {
        let folder = tempfile::tempdir().unwrap();
        let task = |index| Task { duty: Duty::Matrix, index };
        let mut queue = Queue::default();
        let of = |queue: &Queue, index| state(folder.path(), task(index), queue).unwrap();
        assert_eq!(of(&queue, 0), TaskState::Open);
        let failed = TaskEnd::Failed { host: "n2".into(), message: "the disk is full".into() };
        task(0).ended(folder.path(), &failed).unwrap();
        let log = task(0).log(folder.path());
        fs::create_dir_all(log.parent().unwrap()).unwrap();
        fs::write(log, "one\ntwo\n\nthree\nfour\n").unwrap();
        let TaskState::Failed { why, lines } = of(&queue, 0) else { panic!("it failed") };
        assert_eq!(
            (why.as_str(), &lines[..]),
            ("on n2: the disk is full", &["two", "three", "four"].map(str::to_owned)[..])
        );
        queue.ended.insert(task(1), "NODE_FAIL".into());
        assert!(matches!(of(&queue, 1), TaskState::Failed { why, .. } if why.starts_with("NODE_FAIL, and no log")));
        queue.ended.insert(task(1), "CANCELLED by 0".into());
        assert_eq!(of(&queue, 1), TaskState::Open);
        queue.tasks.insert(task(0), InQueue { runs: false, place: "Priority".into(), elapsed: "0:00".into() });
        assert_eq!(of(&queue, 0), TaskState::Waiting { reason: "Priority".into() });
    }
}
