//! LongBench v1 (Bai et al., arXiv 2308.14508) from a folder in the layout of its repository: `data/<task>.jsonl`,
//! `config/dataset2prompt.json`, `config/dataset2maxlen.json`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use cokv_core::config::unknown_name;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{DataError, Record, Split, TaskProtocol, TaskRecords};
use crate::fingerprint::fingerprint;
use crate::metrics;

/// All tasks, in the order of the paper's tables.
pub const TASKS: [&str; 21] = [
    "narrativeqa",
    "qasper",
    "multifieldqa_en",
    "multifieldqa_zh",
    "hotpotqa",
    "2wikimqa",
    "musique",
    "dureader",
    "gov_report",
    "qmsum",
    "multi_news",
    "vcsum",
    "trec",
    "triviaqa",
    "samsum",
    "lsht",
    "passage_count",
    "passage_retrieval_en",
    "passage_retrieval_zh",
    "lcc",
    "repobench-p",
];

/// Tasks whose prompts are continued as they are, without chat template (`pred.py`).
const NO_CHAT: [&str; 6] = ["trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"];

/// A folder with LongBench's data.
#[derive(Debug)]
pub struct LongBench<'a> {
    folder: &'a Path,
    templates: HashMap<String, String>,
    max_new_tokens: HashMap<String, usize>,
}

#[derive(Deserialize)]
struct Line {
    input: String,
    context: String,
    answers: Vec<String>,
    #[serde(default)]
    length: u64,
    #[serde(default)]
    language: String,
    all_classes: Option<Vec<String>>,
    #[serde(rename = "_id")]
    id: String,
}

impl<'a> LongBench<'a> {
    /// Reads the two configuration files.
    pub fn open(folder: &'a Path) -> Result<Self, DataError> {
        Ok(Self {
            folder,
            templates: read_json(&folder.join("config/dataset2prompt.json"))?,
            max_new_tokens: read_json(&folder.join("config/dataset2maxlen.json"))?,
        })
    }

    /// Names of tasks as users write them: `all` stands for every task that the folder has a file of.
    pub fn resolve(&self, names: &[String]) -> Result<Vec<String>, DataError> {
        let mut tasks = Vec::new();
        for name in names {
            if name == "all" {
                let present = TASKS.iter().filter(|task| self.file(task).is_file());
                tasks.extend(present.map(|task| (*task).to_owned()));
            } else if TASKS.contains(&name.as_str()) {
                tasks.push(name.clone());
            } else {
                return Err(DataError::UnknownTask(unknown_name("LongBench task", name, TASKS)));
            }
        }
        Ok(tasks)
    }

    /// The first `limit` records of a part of a task.
    pub fn load(&self, task: &str, split: Split, limit: usize) -> Result<TaskRecords, DataError> {
        let entry = |what: &str| DataError::File {
            path: self.folder.join(format!("config/{what}.json")).display().to_string(),
            message: format!("there is no entry for `{task}`"),
        };
        let protocol = TaskProtocol {
            name: task.into(),
            template: self.templates.get(task).ok_or_else(|| entry("dataset2prompt"))?.clone(),
            max_new_tokens: *self.max_new_tokens.get(task).ok_or_else(|| entry("dataset2maxlen"))?,
            metric: metrics::of_task(task)
                .ok_or_else(|| DataError::UnknownTask(unknown_name("LongBench task", task, TASKS)))?,
            chat: !NO_CHAT.contains(&task),
            stops_at_newline: task == "samsum",
        };
        // The other parts depend on how many records there are.
        let needed = if split == Split::All { limit } else { usize::MAX };
        let lines: Vec<Line> = read_jsonl(&self.file(task), needed, LAYOUT)?;
        let places = split.places(lines.len());
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut records: Vec<Option<Record>> = Vec::with_capacity(lines.len());
        records.extend(lines.into_iter().map(|line| {
            // The same record twice counts twice, as upstream; rows need ids of their own.
            let id = match seen.entry(line.id.clone()).and_modify(|times| *times += 1).or_insert(1) {
                1 => line.id,
                times => format!("{}#{times}", line.id),
            };
            let asked = [task, &id, &line.input, &line.context].map(str::to_owned);
            Some(Record {
                fingerprint: fingerprint(asked.into_iter().chain(line.answers.iter().cloned())),
                id,
                task: task.into(),
                input: line.input,
                context: line.context,
                answers: line.answers,
                all_classes: line.all_classes.unwrap_or_default(),
                length: line.length,
                language: line.language,
                place: None,
            })
        }));
        let records = places.into_iter().filter_map(|place| records[place].take()).take(limit).collect();
        Ok(TaskRecords { protocol, records })
    }

    fn file(&self, task: &str) -> std::path::PathBuf {
        self.folder.join(format!("data/{task}.jsonl"))
    }
}

const LAYOUT: &str =
    " (a LongBench folder holds data/<task>.jsonl, config/dataset2prompt.json and config/dataset2maxlen.json)";

fn read(path: &Path, hint: &'static str) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|error| DataError::Io { path: path.display().to_string(), error, hint })
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    serde_json::from_str(&read(path, LAYOUT)?).map_err(|error| DataError::Line {
        path: path.display().to_string(),
        line: error.line(),
        message: error.to_string(),
    })
}

/// The first `limit` lines of a JSONL file; blank ones are skipped. `hint` is said where there is no such file.
pub fn read_jsonl<T: DeserializeOwned>(path: &Path, limit: usize, hint: &'static str) -> Result<Vec<T>, DataError> {
    read(path, hint)?
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .take(limit)
        .map(|(index, line)| {
            serde_json::from_str(line).map_err(|error| DataError::Line {
                path: path.display().to_string(),
                line: index + 1,
                // Every line is a document of its own to the parser.
                message: error.to_string().replace(" at line 1 column ", " at column "),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(task_file: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("config/dataset2prompt.json", r#"{"trec": "{context}|{input}"}"#),
            ("config/dataset2maxlen.json", r#"{"trec": 64}"#),
            ("data/trec.jsonl", task_file),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    const RECORD: &str =
        r#"{"input":"i","context":"c","answers":["a"],"length":3,"language":"en","all_classes":null,"_id":"x"}"#;

    #[test]
    fn records_are_read_up_to_the_limit() {
        let folder = folder(&format!("{RECORD}\n\n{RECORD}\n{RECORD}\n"));
        let longbench = LongBench::open(folder.path()).unwrap();
        let task = longbench.load("trec", Split::All, 2).unwrap();
        assert_eq!((task.records.len(), task.protocol.max_new_tokens, task.protocol.chat), (2, 64, false));
        assert_eq!([&task.records[0].id, &task.records[1].id], ["x", "x#2"]);
        assert_eq!(longbench.resolve(&["all".into()]).unwrap(), ["trec"]);
    }

    #[test]
    fn mistakes_name_file_and_line() {
        let folder = folder(&format!("{RECORD}\nnot json\n"));
        let longbench = LongBench::open(folder.path()).unwrap();
        let error = longbench.load("trec", Split::All, 9).unwrap_err().to_string();
        assert!(error.contains("data/trec.jsonl:2: "), "{error}");
        let error = longbench.load("qasper", Split::All, 9).unwrap_err().to_string();
        assert!(error.contains("no entry for `qasper`"), "{error}");
        let error = longbench.resolve(&["tric".into()]).unwrap_err().to_string();
        assert!(error.contains("did you mean `trec`"), "{error}");
        let error = LongBench::open(Path::new("/nowhere")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/config/dataset2prompt.json") && error.contains("LongBench folder"), "{error}");
    }
}
