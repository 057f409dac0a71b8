//! A run's folder, read.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::UNIX_EPOCH;

use serde_json::Value as Json;

use super::ReportError;
use crate::run::{Kept, Manifest, ManifestMethod, Results, Row};

/// All that a report needs of a run.
pub struct LoadedRun {
    /// Name of the folder.
    pub name: String,
    /// The configuration as it was written; empty where it is missing.
    pub config: String,
    /// Versions and machine.
    pub environment: Json,
    /// One for each model.
    pub models: Vec<ModelRun>,
    /// Day of the last row, as in 2026-11-26 (UTC); none where the system does not tell.
    pub date: Option<String>,
    /// Lines of its results that are no rows, each `file:line: what is wrong`.
    pub damaged: Vec<String>,
}

/// What a run did with one model.
pub struct ModelRun {
    /// The model's source.
    pub model: String,
    /// Rows that are done, in the order of the configuration.
    pub rows: Vec<Row>,
    /// Rows of the configuration that are not done.
    pub missing: usize,
    /// Methods and layout; none for runs of builds that did not write it.
    pub manifest: Option<Manifest>,
    /// What was kept of some prompts.
    pub kept: Vec<Kept>,
}

impl LoadedRun {
    /// Reads a folder that `cokv bench` has made, whether or not its run has ended.
    pub fn read(folder: &Path) -> Result<Self, ReportError> {
        let results = Results::read(folder)?;
        let mut kept = Kept::read(folder)?;
        let nothing = results.rows().next().is_none();
        let mut models: Vec<ModelRun> = Vec::new();
        for manifest in Manifest::read(folder)? {
            let rows: Vec<Row> = manifest.rows.iter().filter_map(|row| results.row(row).cloned()).collect();
            let ours = kept.extract_if(.., |kept| kept.model == manifest.model).collect();
            models.push(ModelRun {
                model: manifest.model.clone(),
                missing: manifest.rows.len() - rows.len(),
                rows,
                kept: current(ours, &manifest),
                manifest: Some(manifest),
            });
        }
        if models.is_empty() {
            models = without_manifest(&results);
        }
        if nothing {
            return Err(ReportError::NoRows(folder.display().to_string()));
        }
        let text = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
        let name =
            fs::canonicalize(folder).ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
        Ok(Self {
            name: name.unwrap_or_else(|| folder.display().to_string()),
            config: text("config.toml"),
            environment: serde_json::from_str(&text("environment.json")).unwrap_or_default(),
            models,
            date: last_change(folder),
            damaged: results.damaged().to_vec(),
        })
    }

    /// What was run on a model: how it is held, as far as the environment says, on which records, and when. Records and the
    /// lengths of prompts are those of the rows, not those of the configuration.
    pub fn facts(&self, model: &ModelRun) -> String {
        let settings = &self.environment["settings"];
        let models = settings["model"].as_array().map_or(&[][..], Vec::as_slice);
        let held = models.iter().find(|held| held["source"] == model.model.as_str()).unwrap_or(&Json::Null);
        let data = &settings["data"];
        let fact = |name: &str, value: &Json| match value {
            Json::Null => None,
            Json::String(text) => Some(format!("{name}{text}")),
            Json::Array(values) => {
                let text = |value: &Json| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                Some(format!("{name}{}", values.iter().map(text).collect::<Vec<_>>().join(", ")))
            }
            other => Some(format!("{name}{other}")),
        };
        let date = self.date.as_ref().map(|date| format!("last row of {date}"));
        let facts = [
            Some(model.model.clone()),
            fact("weights ", &held["weights"]),
            fact("cache ", &held["cache"]),
            fact("data ", &data["source"]),
            model.records_of_tasks(),
            model.prompt_lengths(),
            fact("seed ", &data["seed"]),
            date,
        ];
        facts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }
}

/// Day on which the results of a run were last written.
fn last_change(folder: &Path) -> Option<String> {
    let files = fs::read_dir(folder).ok()?.flatten();
    let results = files.filter(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.starts_with("results") && name.ends_with(".jsonl")
    });
    let last = results.filter_map(|file| file.metadata().ok()?.modified().ok()).max()?;
    Some(day_of(last.duration_since(UNIX_EPOCH).ok()?.as_secs() / 86400))
}

/// A day of the Gregorian calendar, counted from 1970-01-01, year by year and month by month.
fn day_of(mut days: u64) -> String {
    let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let mut month = 1;
    for length in [31, 28 + u64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!("{year}-{month:02}-{:02}", days + 1)
}

impl ModelRun {
    /// Methods, as far as they are known.
    pub fn methods(&self) -> &[ManifestMethod] {
        self.manifest.as_ref().map_or(&[], |manifest| &manifest.methods)
    }

    /// How many records of each task have rows; none where there are no rows.
    fn records_of_tasks(&self) -> Option<String> {
        let mut tasks: Vec<(&str, HashSet<&str>)> = Vec::new();
        for row in &self.rows {
            match tasks.iter_mut().find(|(task, _)| *task == row.task) {
                Some((_, records)) => {
                    records.insert(&row.record);
                }
                None => tasks.push((&row.task, HashSet::from([row.record.as_str()]))),
            }
        }
        let texts: Vec<String> = tasks.iter().map(|(task, records)| format!("{task} {}", records.len())).collect();
        (!texts.is_empty()).then(|| format!("records: {}", texts.join(", ")))
    }

    /// Lengths of the prompts that have rows.
    fn prompt_lengths(&self) -> Option<String> {
        let prompts: HashSet<_> = self.rows.iter().map(|row| (&row.task, &row.record, row.prompt_tokens)).collect();
        let mut lengths: Vec<usize> = prompts.into_iter().map(|(.., tokens)| tokens).collect();
        lengths.sort_unstable();
        let (shortest, longest) = (lengths.first()?, lengths.last()?);
        Some(match shortest == longest {
            true => format!("prompts of {shortest} tokens"),
            false => {
                format!("prompts of {shortest} to {longest} tokens, half of them up to {}", lengths[lengths.len() / 2])
            }
        })
    }

    /// Records that a cell has when it is whole: as many as the configuration asks for, as far as that is known, else as
    /// many as there are.
    pub fn records(&self) -> usize {
        let seen = self.rows.iter().map(|row| (&row.task, &row.record)).collect::<HashSet<_>>().len();
        let Some(manifest) = &self.manifest else { return seen };
        let cell = |row: &Row| (row.method.clone(), row.budget);
        let cells = self.rows.iter().map(cell).collect::<HashSet<_>>().len().max(1);
        // A record's cells follow one another, so that rows of a cell are whole records apart, also where damage has left a
        // cell no row.
        let places: HashMap<&str, usize> = manifest.rows.iter().map(String::as_str).zip(0..).collect();
        let mut last = HashMap::new();
        let mut apart = 0;
        for row in &self.rows {
            let Some(&place) = places.get(row.fingerprint.as_str()) else { continue };
            if let Some(before) = last.insert(cell(row), place) {
                apart = greatest_common_divisor(apart, place.abs_diff(before));
            }
        }
        let cells = if apart % cells == 0 { cells } else { apart };
        seen.max(manifest.rows.len() / cells)
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// What was kept by cells of the configuration; of prompts that were run again, the last.
fn current(all: Vec<Kept>, manifest: &Manifest) -> Vec<Kept> {
    let rows: HashSet<&str> = manifest.rows.iter().map(String::as_str).collect();
    let heads = manifest.layers * manifest.kv_heads;
    let mut current: Vec<Kept> = Vec::new();
    for mut kept in all {
        kept.cells.retain(|cell| rows.contains(cell.fingerprint.as_str()) && cell.heads.len() == heads);
        if !kept.cells.is_empty() {
            current.retain(|other| other.task != kept.task);
            current.push(kept);
        }
    }
    current
}

/// All rows, in the order in which a configuration would have them.
fn without_manifest(results: &Results) -> Vec<ModelRun> {
    let names: HashSet<&str> = results.rows().map(|row| row.model.as_str()).collect();
    let mut names: Vec<&str> = names.into_iter().collect();
    names.sort_unstable();
    let rows_of = |model: &str| {
        let mut rows: Vec<Row> = results.rows().filter(|row| row.model == model).cloned().collect();
        let tokens = |row: &Row| row.budget.tokens().unwrap_or(usize::MAX);
        rows.sort_by(|a, b| {
            let key = |row: &Row| {
                (
                    row.task.clone(),
                    !row.budget.is_full(),
                    row.method.clone(),
                    tokens(row),
                    row.budget.to_string(),
                    row.record.clone(),
                )
            };
            key(a).cmp(&key(b))
        });
        rows
    };
    let of = |model: &str| ModelRun {
        model: model.into(),
        rows: rows_of(model),
        missing: 0,
        manifest: None,
        kept: Vec::new(),
    };
    names.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::row;

    #[test]
    fn days_are_those_of_the_calendar() {
        let days = [0, 59, 11_016, 11_017, 19_782, 20_783];
        let texts = ["1970-01-01", "1970-03-01", "2000-02-29", "2000-03-01", "2024-02-29", "2026-11-26"];
        assert_eq!(days.map(day_of), texts);
    }

    #[test]
    fn a_whole_cell_has_what_the_configuration_asks_for() {
        let all: Vec<Row> = (0..12)
            .map(|place| Row {
                method: ["a", "b", "c"][place % 3].into(),
                record: (place / 3).to_string(),
                ..row(&place.to_string())
            })
            .collect();
        let manifest =
            Manifest { rows: all.iter().map(|row| row.fingerprint.clone()).collect(), ..Manifest::default() };
        let records = |keep: &dyn Fn(usize) -> bool| {
            let rows: Vec<Row> =
                all.iter().zip(0..).filter(|(_, place)| keep(*place)).map(|(row, _)| row.clone()).collect();
            let (missing, manifest) = (12 - rows.len(), Some(manifest.clone()));
            ModelRun { model: "m".into(), rows, missing, manifest, kept: Vec::new() }.records()
        };
        assert_eq!(records(&|_| true), 4);
        assert_eq!(records(&|place| place < 3), 4, "one prompt");
        assert_eq!(records(&|place| place / 3 % 2 == 0), 4, "a shard");
        assert_eq!(records(&|place| place % 3 > 0), 4, "a cell without rows");
    }

    #[test]
    fn what_the_files_do_not_say_is_left_out() {
        let model = ModelRun { model: "m".into(), rows: Vec::new(), missing: 0, manifest: None, kept: Vec::new() };
        let mut run = LoadedRun {
            name: "r".into(),
            config: String::new(),
            environment: Json::Null,
            models: Vec::new(),
            date: None,
            damaged: Vec::new(),
        };
        assert_eq!(run.facts(&model), "m");
        run.environment = serde_json::json!({ "settings": {
            "model": [{ "source": "n", "cache": "f32" }, { "source": "m", "cache": "f16", "weights": "stored" }],
            "data": { "source": "synthetic", "tasks": ["passkey", "needle"], "records": 8, "context_tokens": 1000 },
        } });
        // Regression: "records of each task 8" and "context tokens 1000" stood above a run of six records of LongBench.
        let of = |task: &str, record: &str, prompt_tokens| Row {
            task: task.into(),
            record: record.into(),
            prompt_tokens,
            ..row("x")
        };
        let rows = vec![of("a", "1", 300), of("a", "1", 300), of("a", "2", 500), of("b", "1", 400)];
        let facts = run.facts(&ModelRun { rows, ..model });
        assert_eq!(
            facts,
            "m · weights stored · cache f16 · data synthetic · records: a 2, b 1 · prompts of 300 to 500 tokens, half of \
             them up to 400"
        );
    }
}
