//! LongBench v1 and LongBench-E (Bai et al., arXiv 2308.14508) in the layout of their repository: `data/<task>.jsonl` and
//! `data/<task>_e.jsonl`, `config/dataset2prompt.json`, `config/dataset2maxlen.json`.

mod archive;
mod fetch;
mod files;
mod tasks;

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;
use serde::de::DeserializeOwned;

pub use self::archive::Archive;
pub use self::fetch::{Fetcher, REPOSITORY};
pub use self::files::Files;
use self::files::Text;
pub use self::tasks::{Category, category, task_of_e};
use super::{DataError, Record, Split, TaskProtocol, TaskRecords, json_lines, values};
use crate::fingerprint::fingerprint;
use crate::metrics;

/// Tasks whose prompts are continued as they are, without chat template (`pred.py`).
const NO_CHAT: [&str; 6] = ["trec", "triviaqa", "samsum", "lsht", "lcc", "repobench-p"];

/// LongBench's records and how they are asked for.
#[derive(Debug)]
pub struct LongBench {
    files: Files,
    templates: HashMap<String, String>,
    max_new_tokens: HashMap<String, usize>,
}

#[derive(Deserialize)]
struct Line {
    #[serde(default, deserialize_with = "values::optional_text")]
    input: Option<String>,
    context: String,
    #[serde(deserialize_with = "values::answers")]
    answers: Vec<String>,
    #[serde(default, deserialize_with = "values::optional_count")]
    length: Option<u64>,
    language: Option<String>,
    all_classes: Option<Vec<String>>,
    #[serde(default, rename = "_id", deserialize_with = "values::optional_text")]
    id: Option<String>,
}

impl LongBench {
    /// Refuses names that are none of a task or a group, before anything is fetched.
    pub fn check_names(names: &[String]) -> Result<(), DataError> {
        tasks::resolve(names, |_| true).map(drop)
    }

    /// Reads the two configuration files.
    pub fn open(files: Files) -> Result<Self, DataError> {
        Ok(Self { templates: read_json(&files, PROMPTS)?, max_new_tokens: read_json(&files, LENGTHS)?, files })
    }

    /// The tasks that users mean by names of tasks and groups: a group stands for those that there is a file of.
    pub fn resolve(&self, names: &[String]) -> Result<Vec<&'static str>, DataError> {
        tasks::resolve(names, |task| self.files.has(&data_file(task)))
    }

    /// The first `limit` records of a part of a task.
    pub fn load(&self, task: &str, split: Split, limit: usize) -> Result<TaskRecords, DataError> {
        // LongBench-E has other records, asked and scored as those of the task.
        let asked_as = task_of_e(task).unwrap_or(task);
        let entry = |file: &str| DataError::File {
            path: self.files.path(file),
            message: format!("there is no entry for `{asked_as}`"),
        };
        let protocol = TaskProtocol {
            name: task.into(),
            template: self.templates.get(asked_as).ok_or_else(|| entry(PROMPTS))?.clone(),
            max_new_tokens: *self.max_new_tokens.get(asked_as).ok_or_else(|| entry(LENGTHS))?,
            metric: metrics::of_task(asked_as)
                .ok_or_else(|| DataError::UnknownTask(format!("`{task}` is no LongBench task")))?,
            chat: !NO_CHAT.contains(&asked_as),
            stop: if asked_as == "samsum" { vec!["\n".into()] } else { Vec::new() },
            first_line_only: metrics::first_line_only(asked_as),
        };
        // The other parts depend on how many records there are.
        let needed = if split == Split::All { limit } else { usize::MAX };
        let Text { path, text } = self.files.read(&data_file(task))?;
        let lines: Vec<Line> = json_lines::parse(&path, &text, needed)?;
        for (place, line) in lines.iter().enumerate() {
            let classes = line.all_classes.as_deref().unwrap_or_default();
            if let Some(reason) = protocol.metric.unscorable(&line.answers, classes) {
                return Err(DataError::File {
                    path,
                    message: format!("record {} cannot be scored: {reason}", place + 1),
                });
            }
        }
        let places = split.places(lines.len());
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut records: Vec<Option<Record>> = Vec::with_capacity(lines.len());
        records.extend(lines.into_iter().enumerate().map(|(place, line)| {
            let id = line.id.unwrap_or_else(|| (place + 1).to_string());
            // The same record twice counts twice, as upstream; rows need ids of their own.
            let id = match seen.entry(id.clone()).and_modify(|times| *times += 1).or_insert(1) {
                1 => id,
                times => format!("{id}#{times}"),
            };
            let input = line.input.unwrap_or_default();
            let asked = [asked_as, &id, &input, &line.context].map(str::to_owned);
            Some(Record {
                fingerprint: fingerprint(asked.into_iter().chain(line.answers.iter().cloned())),
                id,
                task: task.into(),
                input,
                context: line.context,
                answers: line.answers,
                all_classes: line.all_classes.unwrap_or_default(),
                length: line.length.unwrap_or(0),
                language: line.language.unwrap_or_default(),
                place: None,
                text: None,
                fields: BTreeMap::new(),
            })
        }));
        let records = places.into_iter().filter_map(|place| records[place].take()).take(limit).collect();
        Ok(TaskRecords { protocol, records })
    }
}

const PROMPTS: &str = "config/dataset2prompt.json";
const LENGTHS: &str = "config/dataset2maxlen.json";

fn data_file(task: &str) -> String {
    format!("data/{task}.jsonl")
}

fn read_json<T: DeserializeOwned>(files: &Files, name: &str) -> Result<T, DataError> {
    let Text { path, text } = files.read(name)?;
    serde_json::from_str(&text).map_err(|error| DataError::Line {
        path,
        line: error.line(),
        message: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
