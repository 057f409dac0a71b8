//! The files of LongBench, in a folder or in an archive.

use std::fs;
use std::path::{Path, PathBuf};

use cokv_models::source::{HubSource, Source};

use super::archive::Archive;
use super::fetch::{Fetcher, REPOSITORY};
use crate::data::{DataError, SYNTHETIC};

/// Where the files are. Their names are those of LongBench's repository: `data/<task>.jsonl`, `config/<name>.json`.
#[derive(Debug)]
pub enum Files {
    /// A folder with both.
    Folder(PathBuf),
    /// An archive with the records, and the configuration in it or beside it.
    Archive(Archive),
}

/// A file's text, and what errors call the file.
pub struct Text {
    /// Where it is.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Files {
    /// What `[data] source` names: a folder, a ZIP archive, or a dataset of the hub, which is fetched where it is not
    /// yet in the cache.
    pub fn find(source: &str, fetcher: &Fetcher) -> Result<Self, DataError> {
        if source.starts_with("hub:") {
            return Ok(Files::Folder(fetcher.folder(&dataset(source)?)?));
        }
        let path = Path::new(source);
        if path.is_file() {
            return Ok(Files::Archive(Archive::open(path)?));
        }
        if path.is_dir() {
            return Ok(Files::Folder(path.to_owned()));
        }
        let meant = if strsim::jaro_winkler(source, SYNTHETIC) > 0.85 {
            format!("; did you mean `{SYNTHETIC}`?")
        } else if source.to_lowercase().ends_with(&REPOSITORY.to_lowercase()) {
            format!("; did you mean `hub:{REPOSITORY}`?")
        } else {
            format!(" (a source is `{SYNTHETIC}`, a LongBench folder, its data.zip, or `hub:{REPOSITORY}`)")
        };
        Err(DataError::Setting(format!("source: `{source}` is no folder and no archive{meant}")))
    }

    /// Whether there is a file of this name.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Files::Folder(folder) => folder.join(name).is_file(),
            Files::Archive(archive) => archive.find(name).is_some(),
        }
    }

    /// What errors call a file.
    pub fn path(&self, name: &str) -> String {
        match self {
            Files::Folder(folder) => folder.join(name),
            Files::Archive(archive) => match archive.find(name) {
                Some(entry) => archive.path().join(entry),
                None => archive.path().with_file_name(name),
            },
        }
        .display()
        .to_string()
    }

    /// Reads a file.
    pub fn read(&self, name: &str) -> Result<Text, DataError> {
        let archive = match self {
            Files::Folder(folder) => return read(&folder.join(name), FOLDER),
            Files::Archive(archive) => archive,
        };
        let path = archive.path();
        if let Some(entry) = archive.find(name) {
            archive.check_unique(name)?;
            return Ok(Text { path: self.path(name), text: archive.read(entry)? });
        }
        if name.starts_with("config/") {
            return read(&path.with_file_name(name), ARCHIVE);
        }
        let message = format!("there is no {name} in it");
        Err(DataError::File { path: path.display().to_string(), message })
    }
}

const FOLDER: &str = " (a LongBench folder holds data/<task>.jsonl, config/dataset2prompt.json and \
                      config/dataset2maxlen.json; `cokv fetch --longbench FOLDER` makes one)";

const ARCHIVE: &str = " (config/dataset2prompt.json and config/dataset2maxlen.json of LongBench's repository belong \
                       beside the archive; `cokv fetch --longbench FOLDER` fetches them)";

fn read(path: &Path, hint: &'static str) -> Result<Text, DataError> {
    let shown = path.display().to_string();
    match fs::read_to_string(path) {
        Ok(text) => Ok(Text { path: shown, text }),
        Err(error) => Err(DataError::Io { path: shown, error, hint }),
    }
}

/// The dataset of a source that begins with `hub:`.
fn dataset(source: &str) -> Result<HubSource, DataError> {
    match source.parse() {
        Ok(Source::Hub(dataset)) if dataset.file.is_none() => Ok(dataset),
        _ => Err(DataError::Setting(format!(
            "source: `{source}` is no dataset; write hub:{REPOSITORY}, or hub:OWNER/NAME@REVISION"
        ))),
    }
}
