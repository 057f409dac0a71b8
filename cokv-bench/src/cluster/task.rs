//! One task: what it is called, and how it ended.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cokv_shapley::whole;
use serde::{Deserialize, Serialize};

use super::error::{ClusterError, io};
use super::stages::{Duty, Stage};

/// What a task exits with that was told to stop and has work left (`EX_TEMPFAIL`): whoever ran it runs it again.
pub const AGAIN: u8 = 75;

/// One piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Task {
    /// What it does.
    pub duty: Duty,
    /// Which of its stage, counted from 0.
    pub index: u64,
}

/// How a task ended the last time. One that was killed says nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "ended", rename_all = "kebab-case")]
pub enum TaskEnd {
    /// All of it is done.
    Done {
        /// On which machine.
        host: String,
        /// Seconds that it took the last time.
        seconds: f64,
    },
    /// It cannot be done.
    Failed {
        /// On which machine.
        host: String,
        /// Why.
        message: String,
    },
}

impl TaskEnd {
    /// Seconds that it took, where all of it is done.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Self::Done { seconds, .. } => Some(*seconds),
            Self::Failed { .. } => None,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.duty, self.index)
    }
}

impl Task {
    /// What it said, by whoever ran it.
    pub fn log(self, cluster: &Path) -> PathBuf {
        cluster.join("logs").join(format!("{self}.log"))
    }

    /// How it ended; none where it never did, or was killed.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn end(self, cluster: &Path) -> Result<Option<TaskEnd>, ClusterError> {
        let path = self.file(cluster);
        match fs::read(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(io(&path)(error)),
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| ClusterError::Damaged { path, error }),
        }
    }

    /// Writes down how it ended.
    pub fn ended(self, cluster: &Path, end: &TaskEnd) -> Result<(), ClusterError> {
        let path = self.file(cluster);
        let text = serde_json::to_string(end).map_err(|error| ClusterError::Damaged { path: path.clone(), error })?;
        whole::write(&path, text + "\n").map_err(io(&path))
    }

    fn file(self, cluster: &Path) -> PathBuf {
        cluster.join("tasks").join(format!("{self}.json"))
    }
}

impl Stage {
    /// Its tasks.
    pub fn all(self) -> impl Iterator<Item = Task> {
        (0..self.tasks).map(move |index| Task { duty: self.duty, index })
    }

    /// Its tasks that are not done.
    ///
    /// # Errors
    /// What was written of one cannot be read.
    pub fn missing(self, cluster: &Path) -> Result<Vec<Task>, ClusterError> {
        let mut missing = Vec::new();
        for task in self.all() {
            if !matches!(task.end(cluster)?, Some(TaskEnd::Done { .. })) {
                missing.push(task);
            }
        }
        Ok(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_not_missing() {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage { duty: Duty::Matrix, tasks: 3 };
        let [first, second, _] = stage.all().collect::<Vec<_>>()[..] else { panic!("three tasks") };
        let host = || "n1".to_owned();
        first.ended(folder.path(), &TaskEnd::Done { host: host(), seconds: 1.5 }).unwrap();
        second.ended(folder.path(), &TaskEnd::Failed { host: host(), message: "no".into() }).unwrap();
        let missing: Vec<String> = stage.missing(folder.path()).unwrap().iter().map(Task::to_string).collect();
        assert_eq!(missing, ["matrix-1", "matrix-2"]);
        fs::write(folder.path().join("tasks/matrix-2.json"), "{").unwrap();
        assert!(stage.missing(folder.path()).unwrap_err().to_string().contains("matrix-2.json"));
    }
}
