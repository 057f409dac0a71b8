//! The folder of a run: which files it has, and who may write to them.

use std::fs;
use std::path::{Path, PathBuf};

use cokv_shapley::lock::LockError;
use cokv_shapley::whole;
use thiserror::Error;

/// Why a run's folder cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file could not be read or written.
    #[error("{path}: {error}{hint}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        error: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Another process is at work in the folder.
    #[error("{0}; wait for it, or choose another `name`")]
    Busy(LockError),
    /// The folder is of another configuration.
    #[error(
        "{folder} holds the results of another configuration, {origin}: give one of the two another name = \"…\", so that \
         each has a folder of its own"
    )]
    Foreign {
        /// The folder.
        folder: String,
        /// The file that it is of.
        origin: String,
    },
    /// What a run says of a model cannot be read.
    #[error("{path}: {error}; run the bench again, which writes it anew")]
    Manifest {
        /// The file.
        path: String,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// A file that is called like ours holds something else.
    #[error("{0}: these are no result rows; move the file away, or choose another `name`")]
    NotRows(String),
}

/// Files of JSON lines that are called so, those of shards too, in order.
pub(super) fn files(folder: &Path, name: &str) -> Result<Vec<PathBuf>, StoreError> {
    let of_shard = |rest: &str| rest == ".jsonl" || (rest.starts_with('-') && rest.ends_with(".jsonl"));
    files_in(folder, |file| file.strip_prefix(name).is_some_and(of_shard))
}

/// Files of a folder, which may not be there, whose name is wanted, in order.
pub(crate) fn files_in(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(io(folder)(error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(io(folder))?.path();
        if path.file_name().and_then(|file| file.to_str()).is_some_and(&wanted) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Makes the first file of `STEM.0ENDING`, `STEM.1ENDING`, … that is not there yet, and its folder. Of several who ask at the
/// same time each gets another, on file systems of clusters too.
pub(crate) fn new_file(folder: &Path, stem: &str, ending: &str) -> std::io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let mut number = 0;
    loop {
        let path = folder.join(format!("{stem}.{number}{ending}"));
        match fs::OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|_| path),
        }
    }
}

/// Writes a file of a run's folder, whole or not at all.
pub fn write(folder: &Path, name: &str, text: &str) -> Result<(), StoreError> {
    let path = folder.join(name);
    whole::write(&path, text).map_err(io(&path))
}

pub(super) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
    let path = path.display().to_string();
    move |error| {
        let hint = match error.kind() {
            std::io::ErrorKind::StorageFull => {
                "; free some space and run the same command again: finished rows are kept"
            }
            _ => "",
        };
        StoreError::Io { path, error, hint }
    }
}

impl From<LockError> for StoreError {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Io { path, error } => io(&path)(error),
            held => Self::Busy(held),
        }
    }
}
