//! Why there are no records.

use std::io;
use std::path::Path;

use cokv_models::source::SourceError;
use cokv_shapley::lock::LockError;
use thiserror::Error;

/// The environment variable that names another address for LongBench's configuration files.
pub const CONFIGURATION_VARIABLE: &str = "COKV_LONGBENCH_CONFIG";

/// Why data could not be read.
#[derive(Debug, Error)]
pub enum DataError {
    /// A file could not be read.
    #[error("{path}: {error}{hint}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// Nobody else may be at work on a folder.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A line of a file is not what it should be.
    #[error("{path}:{line}: {message}")]
    Line {
        /// The file.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A file as a whole is not what it should be.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// LongBench's records could not be fetched.
    #[error("{0}\nor download LongBench's data.zip with another machine, and name its path as the source of the data")]
    Fetch(#[from] SourceError),
    /// A configuration file of LongBench could not be fetched.
    #[error(
        "{reason}\n{path} is still missing: copy LongBench/config/{name} from https://github.com/THUDM/LongBench there, or \
         name an address that has it in {CONFIGURATION_VARIABLE}"
    )]
    Configuration {
        /// Where it belongs.
        path: String,
        /// Its name.
        name: &'static str,
        /// What happened.
        reason: String,
    },
    /// No task has this name.
    #[error("{0}")]
    UnknownTask(String),
    /// The `[data]` settings ask for what cannot be.
    #[error("[data] {0}")]
    Setting(String),
    /// The synthetic suite cannot be made so.
    #[error(transparent)]
    Synthetic(#[from] SyntheticError),
}

impl DataError {
    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.display().to_string();
        move |error| DataError::Io { path, error, hint: "" }
    }
}

/// What can go wrong when a generated suite is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntheticError {
    /// What a record must contain does not fit into its context.
    #[error("{task} needs a context of at least {minimum} tokens, not {context_tokens}")]
    ContextTooSmall {
        /// The task asked for.
        task: &'static str,
        /// The context asked for, in tokens.
        context_tokens: usize,
        /// The smallest context that holds every record asked for, in tokens.
        minimum: usize,
    },
    /// The task asks what nobody has supplied.
    #[error(
        "{0} asks questions that are supplied: name a file of LongBench's record layout (`input`, `context`, `answers`), or \
         SQuAD's, beside `tasks`, such as questions = \"squad.jsonl\""
    )]
    NoQuestions(&'static str),
    /// All supplied paragraphs together do not fill a context.
    #[error(
        "{task}: the paragraphs supplied fill {tokens} of {context_tokens} tokens; supply more records, or ask for a shorter \
         context"
    )]
    NotFilled {
        /// The task asked for.
        task: &'static str,
        /// What the shortest record has, in tokens.
        tokens: usize,
        /// The context asked for, in tokens.
        context_tokens: usize,
    },
    /// No task and no group of tasks has this name.
    #[error("{0}")]
    UnknownTask(String),
}
