//! The folder of a run: its configuration, its environment, and `results.jsonl`, to which every finished prompt is
//! appended before the next begins.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};

use cokv_core::Shard;
use cokv_shapley::lines::{LineLog, Lines};
use cokv_shapley::lock::{Lock, Means, Mode};
use serde::{Deserialize, Serialize};

use super::budget::CellBudget;
use super::folder::{StoreError, files, io, new_file, write};
use super::kept::{KEPT, Kept};
use crate::data::{Place, Protocol};
use crate::scores::HeadScoresWorth;

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
    /// Name of the method, and of the protocol where that is not the usual one.
    pub method: String,
    /// When the prompt was compressed.
    #[serde(default, skip_serializing_if = "Protocol::is_question_seen")]
    pub protocol: Protocol,
    /// What was chosen for the task and budget, of settings that were listed to choose from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub settings: String,
    /// How well its head scores are known, where it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_scores: Option<HeadScoresWorth>,
    /// Its budget as configured; `full` for a method that evicts nothing.
    pub budget: CellBudget,
    /// Length of the prompt, its question included.
    pub prompt_tokens: usize,
    /// Of these, tokens that were there to be compressed, where the question was not; none where all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<usize>,
    /// Prompt tokens kept, all KV heads together.
    pub kept_tokens: usize,
    /// `kept_tokens` as a share of what the full cache holds.
    pub kept_share: f64,
    /// Bytes of the compressed prompt's buffers.
    pub cache_bytes: usize,
    /// Tokens of prompt and answer that all KV heads together held at most while the model answered, where the method evicts then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub most_held: Option<usize>,
    /// The model's answer.
    pub prediction: String,
    /// What was asked of the text, the beginning of it; empty in rows of builds that did not write it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub question: String,
    /// Acceptable answers.
    pub answers: Vec<String>,
    /// Labels of a classification task.
    pub all_classes: Vec<String>,
    /// Length of the record in the benchmark's own count.
    pub length: u64,
    /// Where in a grid of lengths and depths the record stands, of the records of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Hash of the text where other records may ask about the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Name of the task's metric; empty in rows of builds that did not write it.
    #[serde(default)]
    pub metric: String,
    /// What the metric says, in [0, 1].
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

impl Row {
    /// Tokens that were there to be compressed.
    pub fn compressed_tokens(&self) -> usize {
        self.context_tokens.unwrap_or(self.prompt_tokens)
    }

    /// Seconds of the prefill and of decoding that one row of its batch answers for.
    pub fn seconds(&self) -> f64 {
        (self.prefill_seconds + self.decode_seconds) / self.batch_rows.max(1) as f64
    }

    /// Whether another row of the same cell has the same results, however long they took.
    fn says_the_same(&self, other: &Self) -> bool {
        let Self { prefill_seconds, decode_seconds, batch_rows, .. } = *other;
        Self { prefill_seconds, decode_seconds, batch_rows, ..self.clone() } == *other
    }
}

/// The rows of a run by their fingerprints.
#[derive(Debug, Default)]
pub struct Results {
    rows: HashMap<String, Row>,
    /// Lines that are no rows, each `file:line: what is wrong`.
    damaged: Vec<String>,
    repeated: Repeated,
}

/// Rows that several files have, as they may where two tasks of a cluster did the same prompt: the first stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repeated {
    /// Rows too many.
    pub rows: usize,
    /// Of these, rows that say something else than the first, as processors that round differently make them.
    pub different: usize,
}

impl Repeated {
    /// What a user should know of it; nothing where the rows say the same.
    pub fn notice(self) -> Option<String> {
        let Self { rows, different } = self;
        (different > 0).then(|| {
            format!(
                "{rows} rows are there more than once, and {different} of them differ, as processors round; the first of each \
                 counts"
            )
        })
    }
}

impl Results {
    /// Reads what a run has done so far, all shards of it, and changes nothing. A folder that is not there holds nothing.
    pub fn read(folder: &Path) -> Result<Self, StoreError> {
        let mut results = Self::default();
        for path in files(folder, RESULTS)? {
            let (rows, damaged) = rows_in(&path, &Lines::read(&path).map_err(io(&path))?)?;
            rows.into_iter().for_each(|row| results.add(row));
            results.damaged.extend(damaged);
        }
        Ok(results)
    }

    fn add(&mut self, row: Row) {
        match self.rows.entry(row.fingerprint.clone()) {
            Entry::Vacant(place) => {
                place.insert(row);
            }
            Entry::Occupied(first) => {
                self.repeated.rows += 1;
                self.repeated.different += usize::from(!first.get().says_the_same(&row));
            }
        }
    }

    /// The row of a fingerprint, if that cell is done.
    pub fn row(&self, fingerprint: &str) -> Option<&Row> {
        self.rows.get(fingerprint)
    }

    /// All rows, in no order; those of earlier configurations too.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.values()
    }

    /// Lines that are no rows, each `file:line: what is wrong`. Their cells are not done.
    pub fn damaged(&self) -> &[String] {
        &self.damaged
    }

    /// Rows that were there already, of which the first stays.
    pub fn repeated(&self) -> Repeated {
        self.repeated
    }
}

/// The rows of a file, and its lines that are none; one without a single row in it is somebody else's.
fn rows_in(path: &Path, lines: &Lines) -> Result<(Vec<Row>, Vec<String>), StoreError> {
    let (rows, damaged) = lines.parse();
    // A row that was being written begins like one; space that was reserved and never written is left as zeros after a
    // power failure.
    let begins = lines.torn().iter().zip(ROW_BEGINS).all(|(byte, expected)| byte == expected);
    let ours = begins || lines.torn().iter().all(|&byte| byte == 0);
    if !ours || (rows.is_empty() && !damaged.is_empty()) {
        return Err(StoreError::NotRows(path.display().to_string()));
    }
    let named = |(line, error)| format!("{}:{line}: not a result row ({error})", path.display());
    Ok((rows, damaged.into_iter().map(named).collect()))
}

const RESULTS: &str = "results";
const ROW_BEGINS: &[u8] = b"{\"fingerprint\":";

/// An open run folder, locked against other processes that would do the same work.
pub struct RunStore {
    folder: PathBuf,
    log: LineLog,
    kept: LineLog,
    results: Results,
    _locks: Vec<Lock>,
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
    ///
    /// Shards of a run share its folder, each with files of its own (`results-1-of-4.jsonl`); the whole run does not share
    /// it with anybody.
    pub fn open(folder: &Path, shard: Shard) -> Result<Opened, StoreError> {
        let (suffix, mode) = match shard {
            Shard::WHOLE => (String::new(), Mode::Exclusive),
            Shard { index, count } => (format!("-{}-of-{count}", index + 1), Mode::Shared),
        };
        let mut locks = vec![Lock::take(&folder.join("lock"), mode, Means::Best)?];
        if shard != Shard::WHOLE {
            locks.push(Lock::take(&folder.join(format!("lock{suffix}")), Mode::Exclusive, Means::Best)?);
        }
        Self::open_files(folder, &suffix, locks)
    }

    /// The same for a task of a cluster, whose nodes may see each other's locks or not: every process writes a new file of its own
    /// (`results-3-of-64.0.jsonl`, then `.1`), so that one which comes back from the dead harms nobody.
    pub fn open_task(folder: &Path, shard: Shard) -> Result<Opened, StoreError> {
        let stem = format!("-{}-of-{}", shard.index + 1, shard.count);
        let path = new_file(folder, &format!("{RESULTS}{stem}"), ".jsonl").map_err(io(folder))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let suffix = name.trim_start_matches(RESULTS).trim_end_matches(".jsonl");
        Self::open_files(folder, suffix, Vec::new())
    }

    fn open_files(folder: &Path, suffix: &str, locks: Vec<Lock>) -> Result<Opened, StoreError> {
        let file = |name: &str| folder.join(format!("{name}{suffix}.jsonl"));
        let path = file(RESULTS);
        let (log, torn_bytes) = LineLog::open(&path, |lines| -> Result<usize, StoreError> {
            rows_in(&path, lines)?;
            Ok(lines.torn().len())
        })?;
        let (kept, ()) = LineLog::open(&file(KEPT), |_| Ok::<_, StoreError>(()))?;
        let results = Results::read(folder)?;
        Ok(Opened { store: Self { folder: folder.into(), log, kept, results, _locks: locks }, torn_bytes })
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
        self.log.append(&rows).and_then(|()| self.log.sync()).map_err(io(self.log.path()))?;
        rows.into_iter().for_each(|row| self.results.add(row));
        Ok(())
    }

    /// Appends what was kept of a prompt.
    pub fn append_kept(&mut self, kept: &Kept) -> Result<(), StoreError> {
        self.kept.append([kept]).map_err(io(self.kept.path()))
    }

    /// Writes a file beside the results, whole or not at all.
    pub fn write(&self, name: &str, text: &str) -> Result<(), StoreError> {
        write(&self.folder, name, text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;

    use super::*;

    pub fn row(fingerprint: &str) -> Row {
        Row {
            fingerprint: fingerprint.into(),
            model: "m".into(),
            task: "t".into(),
            record: "1".into(),
            method: "snapkv".into(),
            protocol: Protocol::default(),
            settings: String::new(),
            head_scores: None,
            budget: "64".parse().unwrap(),
            prompt_tokens: 100,
            context_tokens: None,
            kept_tokens: 640,
            kept_share: 0.64,
            cache_bytes: 1000,
            most_held: None,
            prediction: "p\n".into(),
            question: String::new(),
            answers: vec!["a".into()],
            all_classes: vec![],
            length: 5,
            place: None,
            text: None,
            metric: String::new(),
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

    fn open(folder: &Path) -> Result<Opened, StoreError> {
        RunStore::open(folder, Shard::WHOLE)
    }

    #[test]
    fn rows_survive_and_a_torn_line_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open(folder.path()).unwrap().store;
        store.append(vec![row("a"), row("b")]).unwrap();
        drop(store);
        let path = folder.path().join("results.jsonl");
        let sound = fs::read(&path).unwrap();
        fs::write(&path, [&sound[..], b"{\"fingerpr"].concat()).unwrap();
        let Opened { mut store, torn_bytes } = open(folder.path()).unwrap();
        assert_eq!(torn_bytes, 10);
        assert_eq!(store.results().row("b"), Some(&row("b")));
        store.append(vec![row("c")]).unwrap();
        drop(store);
        assert!(open(folder.path()).unwrap().store.results().row("c").is_some());
        assert!(fs::read(&path).unwrap().starts_with(&sound));
    }

    #[test]
    fn rows_carry_a_place_only_where_there_is_one() {
        let without = serde_json::to_string(&row("a")).unwrap();
        assert!(!without.contains("place"), "{without}");
        assert_eq!(serde_json::from_str::<Row>(&without).unwrap(), row("a"));
        let with = Row { place: Some(Place { context_tokens: 2000, depth_percent: 25 }), ..row("a") };
        let json = serde_json::to_value(&with).unwrap();
        assert_eq!(json["place"], serde_json::json!({"context_tokens": 2000, "depth_percent": 25}));
        assert_eq!(serde_json::from_value::<Row>(json).unwrap(), with);
    }

    #[test]
    fn a_damaged_row_is_named_and_only_its_cell_is_not_done() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        open(folder.path()).unwrap().store.append(vec![row("a"), row("b"), row("c")]).unwrap();
        let text = fs::read_to_string(&path).unwrap().replace("\"b\",\"model\":", "\"b\",\"mo");
        fs::write(&path, &text).unwrap();
        let store = open(folder.path()).unwrap().store;
        let results = store.results();
        assert_eq!(["a", "b", "c"].map(|name| results.row(name).is_some()), [true, false, true]);
        assert!(results.damaged()[0].contains("results.jsonl:2: not a result row"), "{:?}", results.damaged());
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "left as it is");
    }

    #[test]
    fn somebody_elses_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        for text in ["{}\n", "somebody's notes"] {
            fs::write(&path, text).unwrap();
            let error = open(folder.path()).err().unwrap().to_string();
            assert!(error.contains("results.jsonl: these are no result rows"), "{error}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn two_processes_do_not_share_a_folder_but_shards_do() {
        let folder = tempfile::tempdir().unwrap();
        let whole = open(folder.path()).unwrap();
        let shard = |index| RunStore::open(folder.path(), Shard { index, count: 2 });
        assert!(matches!(open(folder.path()), Err(StoreError::Busy(_))));
        assert!(matches!(shard(0), Err(StoreError::Busy(_))));
        drop(whole);
        let (mut first, mut second) = (shard(0).unwrap().store, shard(1).unwrap().store);
        assert!(matches!(shard(1), Err(StoreError::Busy(_))));
        assert!(matches!(open(folder.path()), Err(StoreError::Busy(_))));
        first.append(vec![row("a")]).unwrap();
        second.append(vec![row("b")]).unwrap();
        drop((first, second));
        let store = open(folder.path()).unwrap().store;
        assert!(store.results().row("a").is_some() && store.results().row("b").is_some());
    }

    /// Regression: the last stayed, so that results depended on the names of files.
    #[test]
    fn tasks_never_share_a_file_and_of_equal_rows_the_first_stays() {
        let folder = tempfile::tempdir().unwrap();
        let task = || RunStore::open_task(folder.path(), Shard { index: 2, count: 8 }).unwrap().store;
        let (mut dead, mut living) = (task(), task());
        dead.append(vec![row("a"), row("b")]).unwrap();
        let slower = Row { decode_seconds: 9.0, ..row("a") };
        living.append(vec![slower, Row { score: 0.5, ..row("b") }]).unwrap();
        let results = Results::read(folder.path()).unwrap();
        assert_eq!(results.row("b"), Some(&row("b")));
        assert_eq!(results.repeated(), Repeated { rows: 2, different: 1 });
        let notice = results.repeated().notice().unwrap();
        assert!(notice.starts_with("2 rows are there more than once, and 1 of them differ"), "{notice}");
        let files = files(folder.path(), RESULTS).unwrap();
        let names: Vec<_> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["results-3-of-8.0.jsonl", "results-3-of-8.1.jsonl"]);
    }
}
