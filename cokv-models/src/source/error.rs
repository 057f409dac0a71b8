//! What can go wrong between a model's name and its files.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{DEFAULT_MODEL, Source};

/// Why a source could not be read or fetched. Every message says what was wrong, where, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The text names no source.
    #[error(
        "cannot read `{text}` as a model source: {problem}\n\
         (a source is a preset, `hub:owner/repo[@revision][/file.gguf]`, `path:…`, or `pip:package==version/file.gguf`)"
    )]
    Syntax {
        /// The text as given.
        text: String,
        /// What is wrong with it, and what to write instead.
        problem: String,
    },

    /// The text has no prefix, so it should be a preset, but there is none of that name.
    #[error("there is no preset named `{name}`{advice}")]
    UnknownPreset {
        /// The name as given.
        name: String,
        /// What there is instead.
        advice: String,
    },

    /// A file or folder is missing, incomplete or damaged.
    #[error("{}: {problem}; {advice}", .path.display())]
    Unusable {
        /// The file or folder at fault.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
        /// What to do.
        advice: String,
    },

    /// Reading or writing a file failed.
    #[error("cannot {action} {}: {cause}", .path.display())]
    Io {
        /// What was attempted, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        cause: io::Error,
    },

    /// This build has no hub client.
    #[error(
        "{source_text} is not in the cache, and this build cannot download from the hub; \
         build with the cargo feature `hub` (it is on by default)"
    )]
    HubDisabled {
        /// The source as written.
        source_text: String,
    },

    /// Only the cache may be used, and the model is not in it.
    #[error("{source_text} is not (wholly) in the cache {}, and HF_HUB_OFFLINE forbids to download it; unset HF_HUB_OFFLINE, or fetch it once on a machine with a network and copy that folder", .cache.display())]
    HubOffline {
        /// The source as written.
        source_text: String,
        /// The cache folder that was searched.
        cache: PathBuf,
    },

    /// The hub does not answer.
    #[error("no connection to {endpoint} ({reason}); check the network, HTTPS_PROXY, or name a mirror in HF_ENDPOINT")]
    HubUnreachable {
        /// The address that was tried.
        endpoint: String,
        /// What the network said.
        reason: String,
    },

    /// The hub refuses access (401 or 403).
    #[error(
        "the hub refuses access to {repository} (status {status}): there is no such repository, or it is private or gated; \
         check the name, accept its licence at {endpoint}/{repository}, and set HF_TOKEN to a token from {endpoint}/settings/tokens"
    )]
    HubDenied {
        /// The repository.
        repository: String,
        /// 401 or 403.
        status: u16,
        /// The hub's address.
        endpoint: String,
    },

    /// The repository, the revision or the file does not exist (404).
    #[error("the hub has no {file} in {repository} at revision {revision} (status 404); {advice}")]
    HubNotFound {
        /// The repository.
        repository: String,
        /// The branch, tag or commit.
        revision: String,
        /// The file that was asked for.
        file: String,
        /// What to do.
        advice: String,
    },

    /// A download from the hub failed for another reason.
    #[error("downloading {file} of {repository} from the hub failed: {reason}; {advice}")]
    HubFailed {
        /// The repository.
        repository: String,
        /// The file that was being downloaded.
        file: String,
        /// What happened.
        reason: String,
        /// What to do.
        advice: String,
    },

    /// A file outside of the hub could not be read.
    #[error("cannot read {address}: {reason}")]
    Web {
        /// The file's address.
        address: String,
        /// What happened, and what to do.
        reason: String,
    },

    /// There is no Python to run pip with.
    #[error(
        "downloading a wheel needs Python with pip, but {tried} cannot be run; install Python 3, or set COKV_PYTHON to its path"
    )]
    PythonMissing {
        /// The commands that were tried.
        tried: String,
    },

    /// pip could not download a wheel.
    #[error("`{command}` failed ({status}):\n{output}\n{advice}")]
    PipFailed {
        /// The command in short.
        command: String,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
        /// What to do.
        advice: String,
    },

    /// A wheel cannot be read, or lacks the file.
    #[error("the wheel {requirement} {problem}")]
    Wheel {
        /// `package==version`.
        requirement: String,
        /// What is wrong, and what to do.
        problem: String,
    },

    /// Downloaded bytes are not those that were expected.
    #[error(
        "{what} was downloaded but has sha256 {found} instead of {expected}; \
         it was thrown away: run again, and if this repeats, the package index serves another file than the one pinned here"
    )]
    Checksum {
        /// What was downloaded.
        what: String,
        /// The pinned digest.
        expected: String,
        /// The digest of what arrived.
        found: String,
    },

    /// Every place that a preset knows has failed.
    #[error("the model `{preset}` could not be fetched from any of its sources:\n{}\n{}", reasons(tried), way_out())]
    Exhausted {
        /// The preset's name.
        preset: String,
        /// The sources in the order they were tried, each with its failure.
        tried: Vec<(Source, SourceError)>,
    },
}

impl SourceError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |cause| SourceError::Io { action, path, cause }
    }

    pub(super) fn unusable(path: &Path, problem: impl Into<String>, advice: impl Into<String>) -> Self {
        SourceError::Unusable { path: path.to_owned(), problem: problem.into(), advice: advice.into() }
    }
}

fn reasons(tried: &[(Source, SourceError)]) -> String {
    let indented = |(source, error): &(Source, SourceError)| {
        format!("  - {source}\n      {}", error.to_string().replace('\n', "\n      "))
    };
    tried.iter().map(indented).collect::<Vec<_>>().join("\n")
}

fn way_out() -> String {
    format!(
        "Connect to a network once (what was fetched is kept), or copy a model here and name it \
         `path:model.gguf` or `path:folder` in place of a preset such as `{DEFAULT_MODEL}`."
    )
}
