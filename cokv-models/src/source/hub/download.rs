//! Downloads from the hub through the `hf-hub` crate.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Repo, RepoType};

use super::{HubSource, Kind, OPTIONAL, absence_marker, digest};
use crate::source::{FetchEvent, FetchOptions, SourceError, local, lock};

/// Brings the source's files into the hub's cache, those that are there already excepted.
pub(super) fn download(source: &HubSource, options: &FetchOptions) -> Result<(), SourceError> {
    let _lock = lock(source, Kind::Model, options)?;
    let client = Client::new(source, Kind::Model, options)?;
    if let Some(file) = &source.file {
        let there = source.snapshot(Kind::Model, options).is_some_and(|snapshot| snapshot.join(file).exists());
        return if there { Ok(()) } else { client.get(source.revision(), file).map(drop) };
    }

    let snapshot = small_files(&client, source, options)?;
    // The weights come last: where they are whole, everything is.
    if snapshot.join(local::WEIGHTS_INDEX).exists() {
        return client.ensure_shards(&snapshot);
    }
    match client.ensure(&snapshot, local::WEIGHTS) {
        Err(SourceError::HubNotFound { .. }) => {
            client.ensure(&snapshot, local::WEIGHTS_INDEX)?;
            client.ensure_shards(&snapshot)
        }
        other => other,
    }
}

/// Brings all files but the weights of a model in safetensors into the hub's cache.
pub(super) fn download_outline(source: &HubSource, options: &FetchOptions) -> Result<(), SourceError> {
    let _lock = lock(source, Kind::Model, options)?;
    small_files(&Client::new(source, Kind::Model, options)?, source, options).map(drop)
}

/// Everything but the weights, and the snapshot folder that it lies in.
fn small_files(client: &Client<'_>, source: &HubSource, options: &FetchOptions) -> Result<PathBuf, SourceError> {
    // All files must be of one commit, even if the branch moves meanwhile: the first file tells which.
    let snapshot = match source.snapshot(Kind::Model, options).filter(|snapshot| snapshot.join(local::CONFIG).exists())
    {
        Some(snapshot) => snapshot,
        None => {
            let config = client.get(source.revision(), local::CONFIG)?;
            config.parent().map(Path::to_owned).unwrap_or_default()
        }
    };
    local::check_architecture(&snapshot)?;
    for name in OPTIONAL {
        match client.ensure(&snapshot, name) {
            Err(SourceError::HubNotFound { .. }) => note_absence(&absence_marker(&snapshot, name))?,
            other => other?,
        }
    }
    client.ensure(&snapshot, local::TOKENIZER)?;
    Ok(snapshot)
}

/// One file of a dataset, brought into the hub's cache.
pub(super) fn dataset_file(source: &HubSource, file: &str, options: &FetchOptions) -> Result<PathBuf, SourceError> {
    let _lock = lock(source, Kind::Dataset, options)?;
    // Another process may have fetched it while this one waited.
    if let Some(path) = source.dataset_file(file, options) {
        return Ok(path);
    }
    let path = Client::new(source, Kind::Dataset, options)?.get(source.revision(), file)?;
    digest::check(&path)?;
    Ok(path)
}

/// Names of a dataset's files.
pub(super) fn dataset_files(source: &HubSource, options: &FetchOptions) -> Result<Vec<String>, SourceError> {
    Client::new(source, Kind::Dataset, options)?.list(source.revision())
}

/// Holds the repository against other processes that fetch it.
fn lock(source: &HubSource, kind: Kind, options: &FetchOptions) -> Result<File, SourceError> {
    let name = format!("{}.cokv.lock", source.cache_name(kind));
    lock::acquire(&options.hub_cache.join(".locks").join(name), &options.observer)
}

fn note_absence(marker: &Path) -> Result<(), SourceError> {
    if let Some(folder) = marker.parent() {
        fs::create_dir_all(folder).map_err(SourceError::io("create the folder", folder))?;
    }
    fs::write(marker, "").map_err(SourceError::io("write", marker))
}

struct Client<'a> {
    api: Api,
    source: &'a HubSource,
    kind: Kind,
    options: &'a FetchOptions,
}

impl<'a> Client<'a> {
    fn new(source: &'a HubSource, kind: Kind, options: &'a FetchOptions) -> Result<Self, SourceError> {
        let api = ApiBuilder::from_cache(hf_hub::Cache::new(options.hub_cache.clone()))
            .with_endpoint(options.hub_endpoint.clone())
            .with_token(options.hub_token.clone())
            .with_retries(0)
            .build()
            .map_err(|error| SourceError::HubFailed {
                repository: source.repository.clone(),
                file: "anything".to_owned(),
                reason: error.to_string(),
                advice: "check HF_ENDPOINT and HF_TOKEN".to_owned(),
            })?;
        Ok(Self { api, source, kind, options })
    }

    fn ensure(&self, snapshot: &Path, file: &str) -> Result<(), SourceError> {
        if snapshot.join(file).exists() {
            return Ok(());
        }
        let commit = snapshot.file_name().unwrap_or_default().to_string_lossy();
        self.get(&commit, file).map(drop)
    }

    fn ensure_shards(&self, snapshot: &Path) -> Result<(), SourceError> {
        let shards = local::shard_names(&snapshot.join(local::WEIGHTS_INDEX))?;
        shards.iter().try_for_each(|shard| self.ensure(snapshot, shard))
    }

    /// Downloads a file.
    ///
    /// hf-hub 0.5 builds its ureq agents with no timeout of any kind and takes no agent from outside, so that a network
    /// that swallows packets would hang it for minutes, and a stalled download for ever. Each download therefore runs on
    /// a thread of its own, which is given up when it stays silent.
    fn get(&self, revision: &str, file: &str) -> Result<PathBuf, SourceError> {
        let repo = self.api.repo(self.repo(revision));
        let name = file.to_owned();
        let (events, received) = mpsc::channel();
        let progress = Watched { bytes: 0, total: 0, events: events.clone() };
        thread::spawn(move || {
            let result = repo.download_with_progress(&name, progress);
            // The receiver is gone only if it has lost patience.
            let _ = events.send(Event::Done(result));
        });

        let mut patience = self.options.patience_at_start();
        let result = loop {
            match received.recv_timeout(patience) {
                Ok(Event::Arrived { bytes, total }) => {
                    patience = self.options.patience;
                    self.options.observer.tell(FetchEvent::Fetching { what: file, bytes, total: Some(total) });
                }
                Ok(Event::Done(result)) => break result.map_err(|error| self.explain(error, revision, file)),
                Err(RecvTimeoutError::Timeout) => {
                    break Err(SourceError::HubUnreachable {
                        endpoint: self.options.hub_endpoint.clone(),
                        reason: format!("nothing arrived for {patience:?}"),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => {
                    break Err(self.failed(
                        file,
                        "the hub client stopped on an answer it did not understand",
                        "check HF_ENDPOINT",
                    ));
                }
            }
        };
        self.options.observer.tell(FetchEvent::Ended);
        result
    }

    /// Names of the repository's files at a revision.
    fn list(&self, revision: &str) -> Result<Vec<String>, SourceError> {
        let repo = self.api.repo(self.repo(revision));
        let (done, received) = mpsc::channel();
        // As in `get`, a thread that can be given up.
        thread::spawn(move || {
            let _ = done.send(repo.info());
        });
        match received.recv_timeout(self.options.patience_at_start()) {
            Ok(Ok(info)) => Ok(info.siblings.into_iter().map(|file| file.rfilename).collect()),
            Ok(Err(error)) => Err(self.explain(error, revision, "the list of files")),
            Err(_) => Err(SourceError::HubUnreachable {
                endpoint: self.options.hub_endpoint.clone(),
                reason: format!("no list of files came within {:?}", self.options.patience_at_start()),
            }),
        }
    }

    fn repo(&self, revision: &str) -> Repo {
        let repo_type = match self.kind {
            Kind::Model => RepoType::Model,
            Kind::Dataset => RepoType::Dataset,
        };
        Repo::with_revision(self.source.repository.clone(), repo_type, revision.to_owned())
    }

    fn failed(&self, file: &str, reason: impl ToString, advice: impl Into<String>) -> SourceError {
        SourceError::HubFailed {
            repository: self.source.repository.clone(),
            file: file.to_owned(),
            reason: reason.to_string(),
            advice: advice.into(),
        }
    }

    fn explain(&self, error: ApiError, revision: &str, file: &str) -> SourceError {
        let endpoint = self.options.hub_endpoint.clone();
        let repository = self.page();
        let partial = || {
            format!(
                "delete *.part in {} and run again",
                self.source.cache_folder(self.kind, self.options).join("blobs").display()
            )
        };
        match error {
            ApiError::RequestError(error) => match http_status(&error) {
                Some(status @ (401 | 403)) => SourceError::HubDenied { repository, status, endpoint },
                Some(404) => SourceError::HubNotFound {
                    repository,
                    revision: revision.to_owned(),
                    file: file.to_owned(),
                    advice: self.advice_for_missing(file),
                },
                Some(416) => self.failed(file, "an earlier partial download does not fit the file", partial()),
                Some(429) => self.failed(file, "too many requests", "wait a few minutes, or set HF_TOKEN"),
                Some(status) => self.failed(file, format!("status {status}"), "try again later"),
                None => SourceError::HubUnreachable { endpoint, reason: error.to_string() },
            },
            ApiError::InvalidResume => {
                self.failed(file, "an earlier partial download is longer than the file", partial())
            }
            ApiError::LockAcquisition(lock) => self.failed(
                file,
                format!("another program holds {}", lock.display()),
                "wait until it has finished, then run again",
            ),
            ApiError::IoError(error) => {
                self.failed(file, error, "what has arrived is kept: run again to go on from there (is the disk full?)")
            }
            other => self.failed(file, other, format!("is {endpoint} a Hugging Face hub? Check HF_ENDPOINT")),
        }
    }

    /// Where the repository's page is, below the hub's address.
    fn page(&self) -> String {
        match self.kind {
            Kind::Model => self.source.repository.clone(),
            Kind::Dataset => format!("datasets/{}", self.source.repository),
        }
    }

    fn advice_for_missing(&self, file: &str) -> String {
        let page = format!("{}/{}", self.options.hub_endpoint, self.page());
        match file {
            local::CONFIG | local::WEIGHTS_INDEX => format!(
                "check the name and the revision at {page}; if it holds GGUF files, name one: hub:{}/FILE.gguf",
                self.source.repository
            ),
            local::TOKENIZER => "cokv needs tokenizer.json: choose a repository that has one".to_owned(),
            _ => format!("see its list of files at {page}/tree/main"),
        }
    }
}

fn http_status(error: &ureq::Error) -> Option<u16> {
    match error {
        ureq::Error::StatusCode(status) => Some(*status),
        _ => None,
    }
}

enum Event {
    Arrived { bytes: u64, total: u64 },
    Done(Result<PathBuf, ApiError>),
}

/// What has arrived of one file; every piece is a sign of life.
struct Watched {
    bytes: u64,
    total: u64,
    events: Sender<Event>,
}

impl Progress for Watched {
    fn init(&mut self, size: usize, _filename: &str) {
        self.total = size as u64;
        self.update(0);
    }

    fn update(&mut self, size: usize) {
        self.bytes += size as u64;
        // The receiver is gone only if it has lost patience.
        let _ = self.events.send(Event::Arrived { bytes: self.bytes, total: self.total });
    }

    fn finish(&mut self) {}
}
