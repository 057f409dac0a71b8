//! Which files a source is, and which task each of them is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::dataset;
use super::tables::{Kind, UNKNOWN};
use crate::data::DataError;
use crate::data::longbench::Fetcher;
use crate::names::file_name;

/// The files of a task, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskFiles {
    /// Name of the task.
    pub task: String,
    /// In the order of their names.
    pub paths: Vec<PathBuf>,
}

impl TaskFiles {
    /// What errors call them.
    pub fn name(&self) -> String {
        self.paths.first().map_or(String::new(), |path| path.display().to_string())
    }
}

/// The files that a source names: one, all of a folder, or those of a dataset on the hub. Files are tasks, called by
/// their names; parts of one (`train-00000-of-00002.parquet`) are one task.
pub fn find(source: &str, fetcher: &Fetcher) -> Result<Vec<TaskFiles>, DataError> {
    if source.starts_with("hub:") {
        let (task, paths) = dataset::fetch(source, fetcher)?;
        return Ok(vec![TaskFiles { task, paths }]);
    }
    let path = Path::new(source);
    let files = match path.is_dir() {
        true => files_of(path)?,
        false => vec![path.to_owned()],
    };
    let mut tasks: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in files {
        tasks.entry(task_name(&file)).or_default().push(file);
    }
    match tasks.is_empty() {
        true => Err(DataError::File {
            path: source.into(),
            message: format!("there is no file of records in it; {UNKNOWN}"),
        }),
        false => Ok(tasks.into_iter().map(|(task, paths)| TaskFiles { task, paths }).collect()),
    }
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let entries = fs::read_dir(folder).map_err(DataError::io(folder))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let hidden = |path: &Path| path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    files.retain(|path| path.is_file() && !hidden(path) && Kind::of(path).is_some());
    files.sort();
    Ok(files)
}

/// A file's name up to its kind, without the number of a part.
fn task_name(file: &Path) -> String {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or("records");
    let stem = name.strip_suffix(".gz").unwrap_or(name);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let name = file_name(without_part(stem));
    if name.is_empty() { "records".into() } else { name }
}

/// `train` of `train-00000-of-00002`.
fn without_part(stem: &str) -> &str {
    let is_number = |text: &str| text.len() >= 4 && text.bytes().all(|digit| digit.is_ascii_digit());
    let parted = stem.rsplit_once("-of-").filter(|(_, of)| is_number(of)).and_then(|(front, _)| front.rsplit_once('-'));
    match parted {
        Some((name, part)) if is_number(part) && !name.is_empty() => name,
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_tasks_and_parts_are_one() {
        for (file, task) in [
            ("my.jsonl", "my"),
            ("a/b c.test.csv.gz", "b-c.test"),
            ("train-00000-of-00002.parquet", "train"),
            ("out-of-1984.json", "out-of-1984"),
            (".jsonl", "records"),
        ] {
            assert_eq!(task_name(Path::new(file)), task, "{file}");
        }
    }
}
