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
    /// About how many seconds it still takes with as many tasks as run: by how long those took that are done, and of the matrix by
    /// its rows. None where nothing is done yet, where none runs, and where all is done.
    pub seconds_left: Option<f64>,
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

    /// What its tasks have become, with how many seconds each of those took that are done.
    fn new(duty: Duty, tasks: Vec<TaskState>, seconds: &[f64]) -> Self {
        let mut stage = Self { duty, tasks, seconds_left: None };
        stage.seconds_left = stage.left(seconds, stage.tasks.len() - stage.done());
        stage
    }

    /// Seconds for so many more pieces, of which the others took so long each.
    fn left(&self, seconds: &[f64], open: usize) -> Option<f64> {
        let each = seconds.iter().sum::<f64>() / seconds.len() as f64;
        let left = open as f64 * each / self.running() as f64;
        Some(left).filter(|left| left.is_finite() && open > 0)
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
            let ends = stage.all().map(|task| task.end(&cluster)).collect::<Result<Vec<_>, _>>()?;
            let seconds: Vec<f64> = ends.iter().flatten().filter_map(TaskEnd::seconds).collect();
            let tasks = stage.all().zip(ends).map(|(task, end)| state_after(&cluster, task, end, queue)).collect();
            Ok(StageStatus::new(stage.duty, tasks, &seconds))
        };
        let mut stages = submission.stages.iter().map(of_stage).collect::<Result<Vec<_>, _>>()?;
        let (results, manifests) = (Results::read(run)?, Manifest::read(run)?);
        let rows = manifests.iter().flat_map(|manifest| &manifest.rows);
        let all_rows = rows.clone().count();
        let seconds: Vec<f64> = rows.filter_map(|row| results.row(row)).map(|row| row.seconds()).collect();
        if let Some(matrix) = stages.iter_mut().find(|stage| stage.duty == Duty::Matrix) {
            matrix.seconds_left = matrix.left(&seconds, all_rows - seconds.len());
        }
        Ok(Self { stages, rows: seconds.len(), all_rows })
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
    Ok(state_after(cluster, task, task.end(cluster)?, queue))
}

/// The same of one whose end is known.
fn state_after(cluster: &Path, task: Task, end: Option<TaskEnd>, queue: &Queue) -> TaskState {
    if let Some(known) = queue.tasks.get(&task) {
        let place = known.place.clone();
        return match known.runs {
            true => TaskState::Running { node: place, elapsed: known.elapsed.clone() },
            false => TaskState::Waiting { reason: place },
        };
    }
    let log = fs::read(task.log(cluster)).ok();
    let failed = |why: String| TaskState::Failed { why, lines: last_lines(log.as_deref().unwrap_or_default()) };
    match (end, queue.ended.get(&task)) {
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
    }
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
    fn what_is_left_follows_from_what_is_done_and_what_runs() {
        let running = || TaskState::Running { node: "n1".into(), elapsed: "0:10".into() };
        let of = |tasks: Vec<TaskState>, seconds: &[f64]| StageStatus::new(Duty::Matrix, tasks, seconds).seconds_left;
        let open = || TaskState::Open;
        assert_eq!(
            of(vec![TaskState::Done, TaskState::Done, running(), running(), open(), open()], &[20.0, 40.0]),
            Some(60.0)
        );
        assert_eq!(of(vec![running(), open()], &[]), None);
        assert_eq!(of(vec![TaskState::Done, open()], &[20.0]), None);
        assert_eq!(of(vec![TaskState::Done], &[20.0]), None);
    }

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
