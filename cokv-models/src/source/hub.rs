//! Models of the Hugging Face hub, and the cache they share with the Python libraries.

#[cfg(feature = "hub")]
mod digest;
#[cfg(feature = "hub")]
mod download;

use std::fmt;
use std::path::{Path, PathBuf};

use super::{FetchOptions, ModelFiles, SourceError, integrity, local};

/// Files that a model may lack. They are small, and are fetched before the weights.
const OPTIONAL: [&str; 5] = [
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
];

/// What a repository holds, which decides where its files lie.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Dataset,
}

impl Kind {
    /// What its folder in the cache begins with.
    fn prefix(self) -> &'static str {
        match self {
            Kind::Model => "models--",
            Kind::Dataset => "datasets--",
        }
    }
}

/// A repository of the Hugging Face hub, or one GGUF file in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubSource {
    /// `owner/name`.
    pub repository: String,
    /// A branch, tag or commit; `None` is `main`.
    pub revision: Option<String>,
    /// The GGUF file, with its folder in the repository; `None` is the safetensors model in the repository's root.
    pub file: Option<String>,
}

impl HubSource {
    /// Reads what follows `hub:`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let expected = || format!("`hub:` is followed by owner/repo[@revision][/file.gguf], not by `{text}`");
        let (owner, rest) = text.split_once('/').ok_or_else(expected)?;
        let (name, file) = match rest.split_once('/') {
            Some((name, file)) => (name, Some(file)),
            None => (rest, None),
        };
        let (name, revision) = match name.split_once('@') {
            Some((name, revision)) => (name, Some(revision.replace("%2F", "/").replace("%2f", "/"))),
            None => (name, None),
        };
        let is_name = |part: &str| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '_')
                && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
        };
        if !is_name(owner) || !is_name(name) {
            return Err(expected());
        }
        if let Some(revision) = &revision
            && !revision.split('/').all(is_name)
        {
            return Err(format!(
                "`{revision}` is no branch, tag or commit; a slash within a revision is written `%2F`, as in `@refs%2Fpr%2F1`"
            ));
        }
        if let Some(file) = file
            && !(local::is_plain_relative(file) && file.ends_with(".gguf"))
        {
            return Err(format!(
                "`{file}` is no .gguf file; for a model in safetensors name only the repository, `hub:{owner}/{name}`"
            ));
        }
        Ok(Self { repository: format!("{owner}/{name}"), revision, file: file.map(str::to_owned) })
    }

    /// The branch, tag or commit that is meant.
    pub fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or("main")
    }

    /// The cached files, if an earlier fetch went to its end. A branch is not looked up again, so that runs repeat;
    /// delete the repository's folder in the cache to have its newest state.
    pub(super) fn cached(&self, options: &FetchOptions) -> Option<Result<ModelFiles, SourceError>> {
        let snapshot = self.snapshot(Kind::Model, options)?;
        let has_all = self.file.is_some()
            || OPTIONAL.iter().all(|name| snapshot.join(name).exists() || absence_marker(&snapshot, name).exists());
        if has_all { self.files_in(&snapshot) } else { None }
    }

    pub(super) fn fetch(&self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        self.fetch_by(options, Self::download, Self::files_in)
    }

    /// The small files alone, where the weights are files of their own.
    pub(super) fn fetch_outline(&self, options: &FetchOptions) -> Result<ModelFiles, SourceError> {
        match self.file {
            Some(_) => self.fetch(options),
            None => self.fetch_by(options, Self::download_outline, Self::outline_in),
        }
    }

    fn fetch_by(
        &self,
        options: &FetchOptions,
        download: impl Fn(&Self, &FetchOptions) -> Result<(), SourceError>,
        files_in: impl Fn(&Self, &Path) -> Option<Result<ModelFiles, SourceError>>,
    ) -> Result<ModelFiles, SourceError> {
        if let Some(files) = self.cached(options) {
            return files;
        }
        let failure = if options.hub_offline {
            Some(SourceError::HubOffline { source_text: self.to_string(), cache: options.hub_cache.clone() })
        } else {
            download(self, options).err()
        };
        // Other programs leave models in this cache without the optional files: when no more can be had, that must do.
        if let Some(files) = self.snapshot(Kind::Model, options).and_then(|snapshot| files_in(self, &snapshot)) {
            return files;
        }
        Err(failure.unwrap_or_else(|| {
            SourceError::unusable(
                &self.cache_folder(Kind::Model, options),
                "the download ended well, but the files are not where they belong",
                "another program may be clearing this cache; run again",
            )
        }))
    }

    /// One file of a dataset of this name, from the cache or downloaded into it. The folder that it lies in bears the
    /// name of the dataset's commit.
    ///
    /// # Errors
    ///
    /// As [`Source::fetch`](super::Source::fetch).
    pub fn fetch_dataset_file(&self, file: &str, options: &FetchOptions) -> Result<PathBuf, SourceError> {
        if let Some(path) = self.dataset_file(file, options) {
            return Ok(path);
        }
        if options.hub_offline {
            return Err(SourceError::HubOffline { source_text: self.to_string(), cache: options.hub_cache.clone() });
        }
        self.download_dataset_file(file, options)
    }

    /// Names of a dataset's files, from the hub, or, where that cannot be asked, of those that are in the cache.
    ///
    /// # Errors
    ///
    /// As [`Source::fetch`](super::Source::fetch).
    pub fn list_dataset_files(&self, options: &FetchOptions) -> Result<Vec<String>, SourceError> {
        let failure = if options.hub_offline {
            SourceError::HubOffline { source_text: self.to_string(), cache: options.hub_cache.clone() }
        } else {
            match self.request_dataset_files(options) {
                Ok(files) => return Ok(files),
                Err(error) => error,
            }
        };
        match self.snapshot(Kind::Dataset, options) {
            Some(snapshot) => local::relative_files(&snapshot),
            None => Err(failure),
        }
    }

    #[cfg(feature = "hub")]
    fn request_dataset_files(&self, options: &FetchOptions) -> Result<Vec<String>, SourceError> {
        download::dataset_files(self, options)
    }

    #[cfg(not(feature = "hub"))]
    fn request_dataset_files(&self, _options: &FetchOptions) -> Result<Vec<String>, SourceError> {
        Err(SourceError::HubDisabled { source_text: self.to_string() })
    }

    /// A file of a dataset that is in the cache.
    fn dataset_file(&self, file: &str, options: &FetchOptions) -> Option<PathBuf> {
        self.snapshot(Kind::Dataset, options).map(|snapshot| snapshot.join(file)).filter(|path| path.exists())
    }

    #[cfg(feature = "hub")]
    fn download_dataset_file(&self, file: &str, options: &FetchOptions) -> Result<PathBuf, SourceError> {
        download::dataset_file(self, file, options)
    }

    #[cfg(not(feature = "hub"))]
    fn download_dataset_file(&self, _file: &str, _options: &FetchOptions) -> Result<PathBuf, SourceError> {
        Err(SourceError::HubDisabled { source_text: self.to_string() })
    }

    #[cfg(feature = "hub")]
    fn download(&self, options: &FetchOptions) -> Result<(), SourceError> {
        download::download(self, options)
    }

    #[cfg(not(feature = "hub"))]
    fn download(&self, _options: &FetchOptions) -> Result<(), SourceError> {
        Err(SourceError::HubDisabled { source_text: self.to_string() })
    }

    #[cfg(feature = "hub")]
    fn download_outline(&self, options: &FetchOptions) -> Result<(), SourceError> {
        download::download_outline(self, options)
    }

    #[cfg(not(feature = "hub"))]
    fn download_outline(&self, options: &FetchOptions) -> Result<(), SourceError> {
        self.download(options)
    }

    /// What a model consists of beside its weights, which a snapshot folder may lack.
    fn outline_in(&self, snapshot: &Path) -> Option<Result<ModelFiles, SourceError>> {
        let is_there = snapshot.join(local::CONFIG).exists() && snapshot.join(local::TOKENIZER).exists();
        is_there.then(|| local::check_outline(snapshot).map(|()| ModelFiles::Folder(snapshot.to_owned())))
    }

    /// What the model consists of within a snapshot folder, checked; `None` if something of it is not there.
    fn files_in(&self, snapshot: &Path) -> Option<Result<ModelFiles, SourceError>> {
        if let Some(file) = &self.file {
            let path = snapshot.join(file);
            return path.exists().then(|| integrity::check_gguf(&path).map(|()| ModelFiles::Gguf(path)));
        }
        let is_there = snapshot.join(local::CONFIG).exists()
            && snapshot.join(local::TOKENIZER).exists()
            && local::weight_files(snapshot).is_ok();
        is_there.then(|| local::check_folder(snapshot).map(|()| ModelFiles::Folder(snapshot.to_owned())))
    }

    fn cache_folder(&self, kind: Kind, options: &FetchOptions) -> PathBuf {
        options.hub_cache.join(self.cache_name(kind))
    }

    fn cache_name(&self, kind: Kind) -> String {
        format!("{}{}", kind.prefix(), self.repository.replace('/', "--"))
    }

    /// The folder of the cached commit that the revision stands for.
    fn snapshot(&self, kind: Kind, options: &FetchOptions) -> Option<PathBuf> {
        let repository = self.cache_folder(kind, options);
        let commit = match std::fs::read_to_string(repository.join("refs").join(self.revision())) {
            Ok(commit) => commit.trim().to_owned(),
            // A commit needs no reference that leads to it.
            Err(_) => self.revision().to_owned(),
        };
        let snapshot = repository.join("snapshots").join(&commit);
        (local::is_plain_relative(&commit) && snapshot.is_dir()).then_some(snapshot)
    }
}

/// Where the Python `huggingface_hub` also notes that a commit has no file of this name.
fn absence_marker(snapshot: &Path, name: &str) -> PathBuf {
    let repository = snapshot.parent().and_then(Path::parent).unwrap_or(snapshot);
    repository.join(".no_exist").join(snapshot.file_name().unwrap_or_default()).join(name)
}

impl fmt::Display for HubSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "hub:{}", self.repository)?;
        if let Some(revision) = &self.revision {
            write!(formatter, "@{}", revision.replace('/', "%2F"))?;
        }
        if let Some(file) = &self.file {
            write!(formatter, "/{file}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::integrity::samples;
    use super::*;
    use std::fs;

    #[test]
    fn parts_are_told_apart() {
        let source = HubSource::parse("o/r@refs%2Fpr%2F1/q/m.gguf").unwrap();
        assert_eq!(source.repository, "o/r");
        assert_eq!(source.revision(), "refs/pr/1");
        assert_eq!(source.file.as_deref(), Some("q/m.gguf"));
        assert_eq!(HubSource::parse("o/r").unwrap().revision(), "main");
    }

    #[test]
    fn what_cannot_be_a_repository_is_refused() {
        for text in [
            "",
            "o",
            "o/",
            "/r",
            "o/r@",
            "o/r/",
            "o/r/model.safetensors",
            "o/r/../x.gguf",
            "../r",
            "o/r@..%2F..",
            "-o/r",
        ] {
            assert!(HubSource::parse(text).is_err(), "{text}");
        }
    }

    fn options(cache: &Path) -> FetchOptions {
        FetchOptions { hub_cache: cache.to_owned(), hub_offline: true, ..FetchOptions::from_env() }
    }

    #[test]
    fn a_snapshot_of_another_program_serves_offline() {
        let cache = tempfile::tempdir().unwrap();
        let repository = cache.path().join("models--o--r");
        let snapshot = repository.join("snapshots/c0ffee");
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), "c0ffee").unwrap();
        let options = options(cache.path());
        let source = HubSource::parse("o/r").unwrap();
        assert!(matches!(source.fetch(&options), Err(SourceError::HubOffline { .. })));

        fs::write(snapshot.join(local::CONFIG), "{}").unwrap();
        fs::write(snapshot.join(local::TOKENIZER), "{}").unwrap();
        assert!(source.fetch(&options).is_err(), "without weights");
        assert_eq!(source.fetch_outline(&options).unwrap(), ModelFiles::Folder(snapshot.clone()));
        fs::write(snapshot.join(local::WEIGHTS), samples::safetensors()).unwrap();
        assert!(source.cached(&options).is_none(), "the optional files were never asked for");
        assert_eq!(source.fetch(&options).unwrap(), ModelFiles::Folder(snapshot.clone()));
        let by_commit = HubSource::parse("o/r@c0ffee").unwrap();
        assert_eq!(by_commit.fetch(&options).unwrap(), ModelFiles::Folder(snapshot.clone()));

        for name in OPTIONAL {
            let marker = absence_marker(&snapshot, name);
            fs::create_dir_all(marker.parent().unwrap()).unwrap();
            fs::write(marker, "").unwrap();
        }
        assert!(source.cached(&options).unwrap().is_ok());
        fs::write(snapshot.join(local::WEIGHTS), "cut").unwrap();
        assert!(matches!(source.fetch(&options), Err(SourceError::Unusable { .. })));
    }
}
