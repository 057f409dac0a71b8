//! The folder of a run: its configuration, its environment, and `results.jsonl`, to which every finished prompt is
//! appended before the next begins.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::data::longbench::task_of_e;

/// One cell of the matrix for one record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Hash of all that could change the row: model, prompt, method, budget, protocol.
    pub fingerprint: String,
    /// The model's source as configured.
    pub model: String,
    /// Name of the task.
    pub task: String,
    /// Id of the record.
    pub record: String,
    /// Name of the method.
    pub method: String,
    /// What was chosen for the task and budget, of settings that were listed to choose from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub settings: String,
    /// Its budget as configured; `full` for a method that evicts nothing.
    pub budget: String,
    /// Length of the prompt.
    pub prompt_tokens: usize,
    /// Prompt tokens kept, all KV heads together.
    pub kept_tokens: usize,
    /// `kept_tokens` as a share of what the full cache holds.
    pub kept_share: f64,
    /// Bytes of the compressed prompt's buffers.
    pub cache_bytes: usize,
    /// The model's answer.
    pub prediction: String,
    /// Acceptable answers.
    pub answers: Vec<String>,
    /// Labels of a classification task.
    pub all_classes: Vec<String>,
    /// Length of the record in the benchmark's own count.
    pub length: u64,
    /// The task's metric, in [0, 1].
    pub score: f64,
    /// Mean log-likelihood of the reference answer's tokens after its first, in nats per token; none for answers of one
    /// token, which no compression can change.
    pub log_likelihood: Option<f64>,
    /// Mean Kullback-Leibler divergence of the full cache's next-token distributions from this cell's, along the
    /// reference answer, in nats per token.
    pub divergence: Option<f64>,
    /// Share of places after the first at which the greedy answer equals the full cache's, its end included; none where
    /// nothing follows the first token.
    pub agreement: Option<f64>,
    /// Tokens of the answer.
    pub new_tokens: usize,
    /// Seconds of the prefill that all cells of the prompt share.
    pub prefill_seconds: f64,
    /// Seconds to decode all cells of the prompt as one batch.
    pub decode_seconds: f64,
    /// Cells of that batch.
    pub batch_rows: usize,
}

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
    #[error("{0}: another cokv process is writing to this run; wait for it, or choose another `name`")]
    Busy(String),
    /// A line in the middle of the results cannot be read.
    #[error("{path}:{line}: not a result row ({message}); move the file away to start afresh, or repair the line")]
    Damaged {
        /// The results file.
        path: String,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
}

/// The rows of a run by their fingerprints.
#[derive(Debug, Default)]
pub struct Results {
    rows: HashMap<String, Row>,
    /// Bytes up to the last line break.
    whole: usize,
    /// Bytes of an unfinished last line.
    torn: usize,
}

impl Results {
    /// Reads what a run has done so far and changes nothing. A folder that is not there holds nothing.
    pub fn read(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(RESULTS);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(io(&path)(error)),
        };
        let damaged =
            |line: usize, message: String| StoreError::Damaged { path: path.display().to_string(), line, message };
        let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let mut rows = HashMap::new();
        let mut lines = 0;
        for line in bytes[..whole].split_inclusive(|&byte| byte == b'\n') {
            lines += 1;
            let row: Row = serde_json::from_slice(line).map_err(|error| damaged(lines, error.to_string()))?;
            rows.insert(row.fingerprint.clone(), row);
        }
        // A row that was being written begins like one; anything else is somebody's file.
        let torn = &bytes[whole..];
        let begins = torn.iter().zip(ROW_BEGINS).all(|(byte, expected)| byte == expected);
        // Space that was reserved and never written is left as zeros after a power failure.
        if !begins && torn.iter().any(|&byte| byte != 0) {
            return Err(damaged(lines + 1, "it does not begin like one".into()));
        }
        Ok(Self { rows, whole, torn: torn.len() })
    }

    /// The row of a fingerprint, if that cell is done.
    pub fn row(&self, fingerprint: &str) -> Option<&Row> {
        self.rows.get(fingerprint)
    }
}

const RESULTS: &str = "results.jsonl";
const ROW_BEGINS: &[u8] = b"{\"fingerprint\":";

/// An open run folder, locked against other processes.
pub struct RunStore {
    folder: PathBuf,
    file: File,
    results: Results,
    _lock: File,
}

/// A store and what opening it found.
pub struct Opened {
    /// The store.
    pub store: RunStore,
    /// Bytes of an unfinished last line that were cut off.
    pub torn_bytes: usize,
}

impl RunStore {
    /// Opens or makes a run's folder and reads what is done. An unfinished last line, as a killed process leaves it, is
    /// cut off.
    pub fn open(folder: &Path) -> Result<Opened, StoreError> {
        fs::create_dir_all(folder).map_err(io(folder))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy(folder.display().to_string())),
            Err(TryLockError::Error(error)) => return Err(io(&lock_path)(error)),
        }
        let results = Results::read(folder)?;
        let path = folder.join(RESULTS);
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io(&path))?;
        file.set_len(results.whole as u64).map_err(io(&path))?;
        file.seek(SeekFrom::End(0)).map_err(io(&path))?;
        let torn_bytes = results.torn;
        Ok(Opened { store: Self { folder: folder.to_path_buf(), file, results, _lock: lock }, torn_bytes })
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything that is done.
    pub fn results(&self) -> &Results {
        &self.results
    }

    /// Appends rows so that they survive the process: all of them are on disk when this returns.
    pub fn append(&mut self, rows: Vec<Row>) -> Result<(), StoreError> {
        let path = self.folder.join(RESULTS);
        let mut text = Vec::new();
        for row in &rows {
            serde_json::to_writer(&mut text, row).map_err(|error| io(&path)(error.into()))?;
            text.push(b'\n');
        }
        let start = self.file.stream_position().map_err(io(&path))?;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        if let Err(error) = written {
            // A full disk leaves a torn line; taking it back keeps the file whole for whoever reads it now.
            let _ = self.file.set_len(start);
            return Err(io(&path)(error));
        }
        self.results.rows.extend(rows.into_iter().map(|row| (row.fingerprint.clone(), row)));
        Ok(())
    }

    /// Writes a file beside the results.
    pub fn write(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let path = self.folder.join(name);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(io(folder))?;
        fs::write(&path, text).map_err(io(&path))
    }

    /// Writes the predictions, instead of those of an earlier run, in LongBench's layout, `pred/<method>@<budget>/<task>.jsonl`
    /// and for LongBench-E `pred_e/<method>@<budget>/<task>.jsonl`, for `cokv score` and for LongBench's own `eval.py`.
    pub fn write_predictions(&self, rows: &[Row]) -> Result<(), StoreError> {
        let mut files: BTreeMap<String, String> = BTreeMap::new();
        for row in rows {
            let budget = row.budget.replace(' ', "");
            let prediction = serde_json::json!({
                "pred": row.prediction,
                "answers": row.answers,
                // As upstream writes it where a task has no classes.
                "all_classes": Some(&row.all_classes).filter(|classes| !classes.is_empty()),
                "length": row.length,
                "_id": row.record,
            });
            let (folder, task) = match task_of_e(&row.task) {
                Some(task) => ("pred_e", task),
                None => ("pred", row.task.as_str()),
            };
            let file = files.entry(format!("{folder}/{}@{budget}/{task}.jsonl", row.method)).or_default();
            file.push_str(&format!("{prediction}\n"));
        }
        for folder in ["pred", "pred_e"].map(|name| self.folder.join(name)) {
            match fs::remove_dir_all(&folder) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(&folder)(error)),
                _ => {}
            }
        }
        files.iter().try_for_each(|(name, text)| self.write(name, text))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> StoreError + use<> {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub fn row(fingerprint: &str) -> Row {
        Row {
            fingerprint: fingerprint.into(),
            model: "m".into(),
            task: "t".into(),
            record: "1".into(),
            method: "snapkv".into(),
            settings: String::new(),
            budget: "64".into(),
            prompt_tokens: 100,
            kept_tokens: 640,
            kept_share: 0.64,
            cache_bytes: 1000,
            prediction: "p\n".into(),
            answers: vec!["a".into()],
            all_classes: vec![],
            length: 5,
            score: 0.1 + 0.2,
            log_likelihood: Some(-1.5),
            divergence: None,
            agreement: Some(1.0),
            new_tokens: 2,
            prefill_seconds: 1.0,
            decode_seconds: 0.5,
            batch_rows: 3,
        }
    }

    #[test]
    fn rows_survive_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = RunStore::open(folder.path()).unwrap().store;
        store.append(vec![row("a"), row("b")]).unwrap();
        drop(store);
        let path = folder.path().join("results.jsonl");
        let sound = fs::read(&path).unwrap();
        fs::write(&path, [&sound[..], b"{\"fingerpr"].concat()).unwrap();
        let Opened { mut store, torn_bytes } = RunStore::open(folder.path()).unwrap();
        assert_eq!(torn_bytes, 10);
        assert_eq!(store.results().row("b"), Some(&row("b")));
        store.append(vec![row("c")]).unwrap();
        drop(store);
        assert!(RunStore::open(folder.path()).unwrap().store.results().row("c").is_some());
        assert!(fs::read(&path).unwrap().starts_with(&sound));
    }

    #[test]
    fn damage_in_the_middle_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        fs::write(&path, "{}\n").unwrap();
        let error = RunStore::open(folder.path()).err().unwrap().to_string();
        assert!(error.contains("results.jsonl:1: not a result row"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n");
        fs::write(&path, "somebody's notes").unwrap();
        assert!(matches!(RunStore::open(folder.path()), Err(StoreError::Damaged { line: 1, .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "somebody's notes");
    }

    #[test]
    fn predictions_of_longbench_e_lie_where_eval_py_looks_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = RunStore::open(folder.path()).unwrap().store;
        let of = |task: &str| Row { task: task.into(), ..row(task) };
        store.write_predictions(&[of("qasper"), of("qasper_e"), of("narrativeqa_e")]).unwrap();
        let there = |name: &str| folder.path().join(name).is_file();
        assert!(there("pred/snapkv@64/qasper.jsonl") && there("pred_e/snapkv@64/qasper.jsonl"));
        // No task of LongBench-E.
        assert!(there("pred/snapkv@64/narrativeqa_e.jsonl") && !there("pred_e/snapkv@64/narrativeqa.jsonl"));
        store.write_predictions(&[of("qasper")]).unwrap();
        assert!(!folder.path().join("pred_e").exists(), "those of an earlier run");
    }

    #[test]
    fn two_processes_do_not_share_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let _first = RunStore::open(folder.path()).unwrap();
        assert!(matches!(RunStore::open(folder.path()), Err(StoreError::Busy(_))));
    }
}
