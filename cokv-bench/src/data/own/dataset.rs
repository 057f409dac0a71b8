//! Datasets of the Hugging Face hub as files of records.

use std::path::{Path, PathBuf};

use cokv_models::source::{HubSource, Source, SourceError};

use super::tables::Kind;
use crate::data::DataError;
use crate::data::longbench::Fetcher;
use crate::names::file_name;

/// The branch where the hub keeps every dataset that it can read, as Parquet files.
const CONVERTED: &str = "refs/convert/parquet";

/// A dataset, and which part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dataset {
    /// Where it is.
    pub hub: HubSource,
    /// What names of its files must contain: a configuration, a split, or both.
    pub parts: Vec<String>,
}

impl Dataset {
    /// Reads `hub:owner/name[@revision][:configuration][:split]`.
    pub fn parse(source: &str) -> Result<Self, DataError> {
        let (repository, parts) = match source.strip_prefix("hub:").and_then(|rest| rest.split_once(':')) {
            Some((repository, parts)) => (format!("hub:{repository}"), parts.split(':').map(str::to_owned).collect()),
            None => (source.to_owned(), Vec::new()),
        };
        match repository.parse() {
            Ok(Source::Hub(hub)) if hub.file.is_none() && parts.iter().all(|part: &String| !part.is_empty()) => {
                Ok(Self { hub, parts })
            }
            _ => Err(DataError::Setting(format!(
                "source: `{source}` is no dataset; write hub:OWNER/NAME, hub:OWNER/NAME@REVISION, or hub:OWNER/NAME:SPLIT"
            ))),
        }
    }
}

/// Fetches the records of a dataset: its own files where it has any that are meant, else those that the hub made of it. With
/// what the task is called.
pub fn fetch(source: &str, fetcher: &Fetcher) -> Result<(String, Vec<PathBuf>), DataError> {
    let Dataset { hub, parts } = Dataset::parse(source)?;
    let converted = HubSource { revision: Some(CONVERTED.into()), ..hub.clone() };
    let mut found = Vec::new();
    for (at, place) in [&hub, &converted].into_iter().enumerate() {
        if at > 0 && hub.revision.is_some() {
            break;
        }
        let files = match place.list_dataset_files(&fetcher.options) {
            // Not every dataset could be made into others.
            Err(SourceError::HubNotFound { .. }) if at > 0 => Vec::new(),
            files => files?,
        };
        let mut meant = meant(&files, &parts);
        meant.sort_unstable();
        if !meant.is_empty() {
            found =
                meant.iter().map(|file| place.fetch_dataset_file(file, &fetcher.options)).collect::<Result<_, _>>()?;
            break;
        }
    }
    if found.is_empty() {
        let wanted = if parts.is_empty() { String::new() } else { format!(" of {}", parts.join(", ")) };
        return Err(DataError::Setting(format!(
            "source: {source} has no files of records{wanted} (.jsonl, .json, .csv, .tsv or .parquet); download it, and name \
             the file"
        )));
    }
    let name = hub.repository.rsplit('/').next().unwrap_or_default();
    Ok((file_name(&[&[name.to_owned()], &parts[..]].concat().join("-")), found))
}

/// Files of records whose paths have all parts, as words; of several splits, where none is named, the first of test,
/// validation and train.
fn meant<'a>(files: &'a [String], parts: &[String]) -> Vec<&'a str> {
    let has = |file: &str, part: &str| {
        file.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|word| word == part)
    };
    let candidates: Vec<&str> = files
        .iter()
        .map(String::as_str)
        .filter(|file| Kind::of(Path::new(file)).is_some() && parts.iter().all(|part| has(file, part)))
        .collect();
    let splits = ["test", "validation", "dev", "train"];
    let first = splits.into_iter().find(|split| candidates.iter().any(|file| has(file, split)));
    match first {
        Some(split) if !parts.iter().any(|part| splits.contains(&part.as_str())) => {
            candidates.into_iter().filter(|file| has(file, split)).collect()
        }
        _ => candidates,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_may_have_a_revision_and_parts() {
        let read =
            |source: &str| Dataset::parse(source).map(|Dataset { hub, parts }| (hub.repository, hub.revision, parts));
        assert_eq!(
            read("hub:rajpurkar/squad:validation").unwrap(),
            ("rajpurkar/squad".into(), None, vec!["validation".into()])
        );
        let (repository, revision, parts) = read("hub:a/b@v1:en:test").unwrap();
        assert_eq!((repository.as_str(), revision.as_deref(), parts.join("+")), ("a/b", Some("v1"), "en+test".into()));
        for wrong in ["hub:squad", "hub:a/b:", "hub:a/b/x.gguf"] {
            assert!(read(wrong).unwrap_err().to_string().contains("is no dataset; write hub:OWNER/NAME"), "{wrong}");
        }
    }

    #[test]
    fn the_files_of_a_split_are_meant() {
        let files = [
            "README.md",
            "plain_text/train-00000-of-00001.parquet",
            "plain_text/test-00000-of-00001.parquet",
            "other/test-00000-of-00001.parquet",
            "latest/x.jsonl",
        ]
        .map(str::to_owned);
        let meant =
            |parts: &[&str]| super::meant(&files, &parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
        assert_eq!(meant(&["train"]), ["plain_text/train-00000-of-00001.parquet"]);
        assert_eq!(meant(&["plain_text"]), ["plain_text/test-00000-of-00001.parquet"]);
        assert_eq!(meant(&[]), ["plain_text/test-00000-of-00001.parquet", "other/test-00000-of-00001.parquet"]);
        assert!(meant(&["validation"]).is_empty());
    }
}
