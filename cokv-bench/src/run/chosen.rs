//! What was chosen for methods with settings to choose from, as a run reads it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::budget::CellBudget;
use crate::config::Config;
use crate::data::{DataSettings, Description};
use crate::fingerprint::{build, fingerprint};

/// The file's name in the run's folder.
pub const FILE: &str = "selection.json";

/// What was chosen, with everything that it was chosen from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selected {
    /// Hash of the model and of all that there was to choose from.
    pub fingerprint: String,
    /// Hashes of the records that it was chosen on.
    pub seen: Vec<String>,
    /// One for every method with settings to choose from, task and budget.
    pub choices: Vec<Choice>,
}

/// The settings of one method for one task and budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Name of the method.
    pub method: String,
    /// Name of the task.
    pub task: String,
    /// The budget as configured.
    pub budget: CellBudget,
    /// The settings chosen, as the configuration lists them.
    pub settings: String,
    /// All settings, in the order of the configuration.
    pub sweep: Vec<Trial>,
}

/// How some settings did on the validation records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// Which settings.
    pub settings: String,
    /// Mean of the task's metric, from 0 to 1.
    pub score: f64,
    /// Mean log-likelihood of the reference answers, where there is one.
    pub log_likelihood: Option<f64>,
    /// Records in the means.
    pub records: usize,
}

/// Why a selection cannot be used.
#[derive(Debug, Error)]
pub enum SelectionError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file is no selection.
    #[error("{}: not a selection ({error}); run `cokv select` again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// The configuration has changed since.
    #[error(
        "{} was made for another model, other methods, budgets or prompts; run `cokv select` with this configuration",
        path.display()
    )]
    Stale {
        /// The file.
        path: PathBuf,
    },
}

impl Selected {
    /// The settings of a method on a task at a budget.
    pub fn settings(&self, method: &str, task: &str, budget: CellBudget) -> Option<&str> {
        let fits = |choice: &&Choice| choice.method == method && choice.task == task && choice.budget == budget;
        self.choices.iter().find(fits).map(|choice| choice.settings.as_str())
    }

    /// Reads the selection of a run's folder; none where none was made.
    pub fn read(folder: &Path) -> Result<Option<Self>, SelectionError> {
        let path = folder.join(FILE);
        let text = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| SelectionError::Io { path: path.clone(), error })?,
        };
        serde_json::from_slice(&text).map_err(|error| SelectionError::Damaged { path, error })
    }

    /// Whether it was made for this configuration and model; `folder` is for the message.
    pub fn check(&self, config: &Config, model: &str, folder: &Path) -> Result<(), SelectionError> {
        match self.fingerprint == selection_fingerprint(config, model) {
            true => Ok(()),
            false => Err(SelectionError::Stale { path: folder.join(FILE) }),
        }
    }
}

/// Hash of everything that a selection depends on beside the validation records.
pub fn selection_fingerprint(config: &Config, model: &str) -> String {
    let open = config.columns.iter().filter(|column| column.is_open());
    let variants = open.flat_map(|column| &column.variants);
    let DataSettings {
        source,
        tasks,
        records: _,
        context_tokens,
        context_lengths,
        depths: _,
        seed: _,
        questions: _,
        haystack,
        split: _,
        max_prompt_tokens,
        chat_template,
        fields: _,
        prompt: _,
        metric: _,
        max_new_tokens: _,
        stop: _,
        first_choice: _,
    } = &config.run.data;
    let own = Some(config.run.data.description()).filter(|own| *own != Description::default());
    let prompts = format!("{source} {tasks:?} {context_tokens} {max_prompt_tokens:?} {chat_template:?}");
    let mut parts = vec![model.to_owned(), config.run.model.held_as(), prompts];
    // Only where they are given, so that a selection made without them stays good.
    parts.extend(context_lengths.iter().map(|lengths| format!("{lengths:?}")));
    parts.extend(haystack.iter().map(|file| file.display().to_string()));
    parts.extend(own.map(|own| format!("{own:?}")));
    // Their order says nothing.
    let kwargs = BTreeMap::from_iter(&config.run.model.chat_template_kwargs);
    parts.extend((!kwargs.is_empty()).then(|| format!("{kwargs:?}")));
    parts.extend(build(config.run.model.device.backend()));
    for variant in variants {
        let own = variant.of_task.iter().map(|(task, method)| format!("{task} {}", method.definition()));
        parts.push(format!("{} {}", variant.settings, variant.method.definition()));
        parts.extend(own);
    }
    parts.push(format!("{:?}", config.run.budgets));
    fingerprint(parts)
}
