//! A run's folder, read.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde_json::Value as Json;

use super::ReportError;
use crate::run::{Kept, Manifest, Results, Row};

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
            damaged: results.damaged().to_vec(),
        })
    }
}

impl ModelRun {
    /// Records that each of some cells, which are all of its rows, has when it is whole: as many as the configuration asks
    /// for, as far as that is known, else as many as there are.
    pub fn records(&self, cells: usize) -> usize {
        let seen = self.rows.iter().map(|row| (&row.task, &row.record)).collect::<HashSet<_>>().len();
        let asked = self.manifest.as_ref().map_or(0, |manifest| manifest.rows.len() / cells.max(1));
        asked.max(seen)
    }
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
        let tokens = |row: &Row| row.budget.parse::<usize>().unwrap_or(usize::MAX);
        rows.sort_by(|a, b| {
            let key = |row: &Row| {
                (
                    row.task.clone(),
                    row.method != "full",
                    row.method.clone(),
                    tokens(row),
                    row.budget.clone(),
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
