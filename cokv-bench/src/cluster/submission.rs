//! What is submitted: a configuration that stays as it is while tasks run, the stages, and the build that runs them.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use cokv_core::{Registry, Shard};
use cokv_shapley::lock::Holder;
use cokv_shapley::whole;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{ClusterError, io as at};
use super::stages::{Duty, Stage, stages};
use super::task::Task;
use crate::config::Config;
use crate::fingerprint::numerics;

/// The folder of everything about a cluster, within a run's.
pub const FOLDER: &str = "cluster";
const FILE: &str = "submission.json";
const CONFIGURATION: &str = "config.toml";

/// A run as it was submitted: `cluster/submission.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The configuration's file, with its folder.
    pub configuration: PathBuf,
    /// Where tasks run, so that a configuration's relative paths are everywhere the same.
    pub directory: PathBuf,
    /// What runs them.
    pub build: Build,
    /// What there is to do, in its order.
    pub stages: Vec<Stage>,
    /// Tasks of a stage that may run at the same time; none where that is left to whoever runs them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_once: Option<u64>,
}

/// Which program it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Version, with what its arithmetic is called.
    pub version: String,
    /// The beginning of the program's SHA-256.
    pub sha256: String,
    /// The machine that said so.
    pub host: String,
}

impl Build {
    /// This program on this machine.
    ///
    /// # Errors
    /// The program cannot be read.
    pub fn this() -> Result<Self, ClusterError> {
        let path = program()?;
        let mut hash = Sha256::new();
        let mut block = vec![0; 1 << 20];
        let mut file = fs::File::open(&path).map_err(at(&path))?;
        loop {
            match file.read(&mut block).map_err(at(&path))? {
                0 => break,
                read => hash.update(&block[..read]),
            }
        }
        let sha256 = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { version: numerics(), sha256, host: Holder::this().host })
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SHA-256 {}…)", self.version, self.sha256)
    }
}

/// The file of this program.
pub fn program() -> Result<PathBuf, ClusterError> {
    std::env::current_exe().map_err(at(Path::new("cokv")))
}

impl Submission {
    /// What a configuration is as a submission of so many tasks.
    ///
    /// # Errors
    /// The program or its folder cannot be read.
    pub fn of(config: &Config, configuration: &Path, tasks: u64, at_once: Option<u64>) -> Result<Self, ClusterError> {
        let directory = std::env::current_dir().map_err(at(Path::new(".")))?;
        Ok(Self {
            configuration: configuration.canonicalize().map_err(at(configuration))?,
            directory,
            build: Build::this()?,
            stages: stages(config, tasks),
            at_once,
        })
    }

    /// Writes it into a run's folder, with the configuration as it is now. How tasks of an earlier submission ended is forgotten.
    pub fn write(&self, run: &Path, text: &str) -> Result<(), ClusterError> {
        let cluster = run.join(FOLDER);
        for folder in ["logs", "tasks"].map(|name| cluster.join(name)) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(&folder)(error)),
                _ => fs::create_dir_all(&folder).map_err(at(&folder))?,
            }
        }
        let write = |name: &str, text: &str| whole::write(&cluster.join(name), text).map_err(at(&cluster.join(name)));
        write(CONFIGURATION, text)?;
        let damaged = |error| ClusterError::Damaged { path: cluster.join(FILE), error };
        write(FILE, &(serde_json::to_string_pretty(self).map_err(damaged)? + "\n"))
    }

    /// Reads that of a run's folder.
    ///
    /// # Errors
    /// [`ClusterError::NotShared`] where it is not there.
    pub fn read(run: &Path) -> Result<Self, ClusterError> {
        let path = run.join(FOLDER).join(FILE);
        let text = fs::read(&path).map_err(|error| missing(&path, error))?;
        serde_json::from_slice(&text).map_err(|error| ClusterError::Damaged { path, error })
    }

    /// The configuration as it was submitted.
    pub fn text(&self, run: &Path) -> Result<String, ClusterError> {
        let path = run.join(FOLDER).join(CONFIGURATION);
        fs::read_to_string(&path).map_err(|error| missing(&path, error))
    }

    /// The same, read. What the file is called counts, and what is written there now does not.
    pub fn config(&self, text: &str, registry: &Registry) -> Result<Config, cokv_core::ConfigError> {
        Config::parse(&self.configuration.display().to_string(), text, registry)
    }

    /// Whether the configuration's file says something else by now.
    pub fn is_changed(&self, run: &Path) -> bool {
        let now = fs::read_to_string(&self.configuration);
        self.text(run).is_ok_and(|then| now.is_ok_and(|now| now != then))
    }

    /// Refuses to run a task with another build than that of the submission.
    pub fn check_build(&self) -> Result<(), ClusterError> {
        let here = Build::this()?;
        if (&here.version, &here.sha256) == (&self.build.version, &self.build.sha256) {
            return Ok(());
        }
        Err(ClusterError::OtherBuild {
            host: here.host.clone(),
            here: here.to_string(),
            submitted: self.build.to_string(),
            from: self.build.host.clone(),
        })
    }

    /// The shard of its stage that a task is.
    ///
    /// # Errors
    /// The run has no such task.
    pub fn shard(&self, task: Task) -> Result<Shard, ClusterError> {
        let names = || self.stages.iter().map(|stage| stage.duty.to_string()).collect::<Vec<_>>().join(", ");
        let Some(stage) = self.stage(task.duty) else {
            return Err(ClusterError::NoSuchTask(format!("the run has no stage `{}`, only {}", task.duty, names())));
        };
        match task.index < stage.tasks {
            true => Ok(Shard { index: task.index, count: stage.tasks }),
            false => Err(ClusterError::NoSuchTask(format!(
                "the index {} is none of stage {}, whose {} tasks count from 0",
                task.index, task.duty, stage.tasks
            ))),
        }
    }

    /// The stage of a duty.
    pub fn stage(&self, duty: Duty) -> Option<&Stage> {
        self.stages.iter().find(|stage| stage.duty == duty)
    }
}

fn missing(path: &Path, error: io::Error) -> ClusterError {
    match error.kind() {
        ErrorKind::NotFound => ClusterError::NotShared { path: path.into(), host: Holder::this().host },
        _ => at(path)(error),
    }
}

/// Keeps a second submission of the same run away, on whichever machine, until it is dropped.
#[derive(Debug)]
pub struct Submitting(PathBuf);

impl Submitting {
    /// Makes the file that says so.
    ///
    /// # Errors
    /// [`ClusterError::Submitting`] where another process has made it.
    pub fn begin(run: &Path) -> Result<Self, ClusterError> {
        let cluster = run.join(FOLDER);
        let Holder { host, process } = Holder::this();
        fs::create_dir_all(&cluster).map_err(at(&cluster))?;
        let path = cluster.join("submitting");
        match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => fs::write(&path, format!("process {process} of {host}")).map_err(at(&path)).map(|()| Self(path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                Err(ClusterError::Submitting { holder, path })
            }
            Err(error) => Err(at(&path)(error)),
        }
    }
}

impl Drop for Submitting {
    fn drop(&mut self) {
        // One that stays is named to whoever comes next.
        let _ = fs::remove_file(&self.0);
    }
}
