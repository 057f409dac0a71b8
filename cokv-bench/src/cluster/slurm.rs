//! Slurm, which does all the scheduling: scripts that it is given, and its commands.

mod queue;
mod script;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use cokv_shapley::whole;
use serde::{Deserialize, Serialize};

pub use self::queue::{InQueue, Queue};
pub use self::script::{Options, quoted, script};
use super::error::{ClusterError, io};
use super::stages::{Duty, Stage};
use super::submission::FOLDER;

/// A stage under the number that Slurm gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// What its tasks do.
    pub duty: Duty,
    /// Slurm's number.
    pub id: String,
}

/// The jobs of a run: `cluster/jobs.json`.
const JOBS: &str = "jobs.json";

/// Those that a run was given, the last of a stage last; none where it was never submitted to Slurm.
pub fn jobs(run: &Path) -> Result<Vec<Job>, ClusterError> {
    let path = run.join(FOLDER).join(JOBS);
    match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io(&path)(error)),
        Ok(text) => serde_json::from_slice(&text).map_err(|error| ClusterError::Damaged { path, error }),
    }
}

/// Writes down the jobs of a run.
pub fn keep_jobs(run: &Path, jobs: &[Job]) -> Result<(), ClusterError> {
    let path = run.join(FOLDER).join(JOBS);
    let text = serde_json::to_string(jobs).map_err(|error| ClusterError::Damaged { path: path.clone(), error })?;
    whole::write(&path, text + "\n").map_err(io(&path))
}

/// What is asked of Slurm for one stage: `indices` of its tasks once the job `after` is done.
pub fn submission(
    run: &Path,
    stage: Stage,
    indices: Option<&[u64]>,
    after: Option<&str>,
    at_once: Option<u64>,
) -> Vec<String> {
    let mut arguments = vec!["--parsable".to_owned()];
    arguments.extend(indices.map(|indices| format!("--array={}", array(indices, at_once))));
    if let Some(after) = after {
        arguments.push(format!("--dependency=afterok:{after}"));
        arguments.push("--kill-on-invalid-dep=yes".into());
    }
    arguments.push(run.join(FOLDER).join(format!("{}.sbatch", stage.duty)).display().to_string());
    arguments
}

/// Indices as Slurm lists them: `0-3,7%2`.
fn array(indices: &[u64], at_once: Option<u64>) -> String {
    let runs = indices.chunk_by(|left, right| left + 1 == *right).map(|run| match run {
        [only] => only.to_string(),
        [first, .., last] => format!("{first}-{last}"),
        [] => String::new(),
    });
    let listed = runs.collect::<Vec<_>>().join(",");
    at_once.map_or_else(|| listed.clone(), |limit| format!("{listed}%{limit}"))
}

/// Submits; the number of the job.
pub fn sbatch(arguments: &[String]) -> Result<String, ClusterError> {
    let said = said("sbatch", arguments)?;
    // A federation says its cluster behind the number.
    Ok(said.trim().split(';').next().unwrap_or_default().to_owned())
}

/// Ends jobs, those that run and those that wait.
pub fn cancel(jobs: &[Job]) -> Result<(), ClusterError> {
    let ids: Vec<String> = jobs.iter().map(|job| job.id.clone()).collect();
    if ids.is_empty() { Ok(()) } else { said("scancel", &ids).map(|_| ()) }
}

/// Finds out whether there is a Slurm that answers.
pub fn check() -> Result<(), ClusterError> {
    said("sinfo", &["--noheader".to_owned(), "--format=%R".to_owned()]).map(|_| ())
}

/// Refuses a partition that is not there.
pub fn check_partition(partition: &str) -> Result<(), ClusterError> {
    let known = said("sinfo", &["--noheader".to_owned(), "--format=%R".to_owned()])?;
    // Slurm takes several, of which the first that is free runs a job.
    let is_known = |name: &str| known.lines().any(|line| line.trim() == name);
    match partition.split(',').find(|name| !is_known(name)) {
        None => Ok(()),
        Some(unknown) => Err(ClusterError::NoPartition {
            partition: unknown.into(),
            known: known.split_whitespace().collect::<Vec<_>>().join(", "),
        }),
    }
}

/// What a command that went well printed.
fn said(command: &str, arguments: &[String]) -> Result<String, ClusterError> {
    let Output { status, stdout, stderr } = Command::new(command)
        .args(arguments)
        .output()
        .map_err(|error| ClusterError::NoSlurm { command: command.into(), error })?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&stderr).trim().to_owned();
    let message = if message.is_empty() { status.to_string() } else { message };
    Err(ClusterError::Slurm { command: command.into(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_listed_as_slurm_lists_them() {
        assert_eq!(array(&[0, 1, 2, 7, 9, 10], None), "0-2,7,9-10");
        assert_eq!(array(&[3], Some(4)), "3%4");
    }
}
