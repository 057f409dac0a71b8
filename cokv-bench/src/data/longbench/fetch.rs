//! LongBench from the network: records from the hub, prompts and answer lengths from the benchmark's own repository.

use std::fs;
use std::path::{Path, PathBuf};

use cokv_models::source::{FetchOptions, HubSource, Observer, read_web_file};
use cokv_shapley::lock::{Lock, Means};
use cokv_shapley::whole;

use super::archive::Archive;
use crate::data::{CONFIGURATION_VARIABLE, DataError};

/// The dataset's repository on the hub.
pub const REPOSITORY: &str = "THUDM/LongBench";

/// The archive in it.
const ARCHIVE: &str = "data.zip";

/// Files that the dataset does not carry.
const CONFIGURATION: [&str; 2] = ["dataset2prompt.json", "dataset2maxlen.json"];

/// Where they lie.
const CONFIGURATION_ADDRESS: &str = "https://raw.githubusercontent.com/THUDM/LongBench/main/LongBench/config";

/// How and where to fetch.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// The hub, caches and patience.
    pub options: FetchOptions,
    /// Address of the folder of the configuration files, without a slash at its end.
    pub configuration: String,
}

impl Fetcher {
    /// Settings from the environment; `observer` hears how a fetch goes.
    pub fn from_env(observer: Observer) -> Self {
        let address = std::env::var(CONFIGURATION_VARIABLE).ok().filter(|address| !address.is_empty());
        Self {
            options: FetchOptions { observer, ..FetchOptions::from_env() },
            configuration: address.as_deref().unwrap_or(CONFIGURATION_ADDRESS).trim_end_matches('/').to_owned(),
        }
    }

    /// The folder of cokv's cache that holds the dataset's current commit, filled where that has not happened.
    pub fn folder(&self, dataset: &HubSource) -> Result<PathBuf, DataError> {
        let archive = dataset.fetch_dataset_file(ARCHIVE, &self.options)?;
        let commit = archive.parent().and_then(Path::file_name).unwrap_or_default();
        let name = dataset.repository.replace('/', "--");
        let folder = self.options.cache.join("longbench").join(name).join(commit);
        let _lock = Lock::wait(&folder.join("lock"), Means::Best)?;
        let data = folder.join("data");
        if !data.is_dir() {
            let unpacking = folder.join("unpacking");
            unpack(&archive, &unpacking)?;
            fs::rename(&unpacking, &data).map_err(DataError::io(&data))?;
        }
        self.configure(&folder)?;
        Ok(folder)
    }

    /// Makes a LongBench folder where users want one. Returns the number of data files.
    pub fn fill(&self, dataset: &HubSource, folder: &Path) -> Result<usize, DataError> {
        let archive = dataset.fetch_dataset_file(ARCHIVE, &self.options)?;
        let files = unpack(&archive, &folder.join("data"))?;
        self.configure(folder)?;
        Ok(files)
    }

    /// Fetches the configuration files that are missing.
    fn configure(&self, folder: &Path) -> Result<(), DataError> {
        for name in CONFIGURATION {
            let path = folder.join("config").join(name);
            if path.is_file() {
                continue;
            }
            let failed = |reason: String| DataError::Configuration { path: path.display().to_string(), name, reason };
            let address = format!("{}/{name}", self.configuration);
            let bytes = read_web_file(&address, &self.options).map_err(|error| failed(error.to_string()))?;
            // A login page or a half file, of a server that states no length, is not taken for what it should be.
            if let Err(error) = serde_json::from_slice::<serde_json::Map<_, _>>(&bytes) {
                return Err(failed(format!("{address} answers with what is no JSON table ({error})")));
            }
            whole::write(&path, &bytes).map_err(DataError::io(&path))?;
        }
        Ok(())
    }
}

/// Unpacks an archive that was downloaded; a damaged one can be had again.
fn unpack(archive: &Path, folder: &Path) -> Result<usize, DataError> {
    let again = |error| match error {
        DataError::File { path, message } => {
            DataError::File { path, message: format!("{message}; it was downloaded: delete it, and run again") }
        }
        other => other,
    };
    Archive::open(archive).and_then(|archive| archive.unpack(folder)).map_err(again)
}

#[cfg(all(test, feature = "hub"))]
mod tests;
