//! From a configuration file to methods that can run: the model loaded, records read, head scores measured.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cokv_core::{HeadScores, Registry};
use cokv_models::LanguageModel;

use super::load::{Loaded, load};
use super::measure::{Wanted, measure};
use crate::config::{Column, Config, Measured, check_unseen};
use crate::data::{Suite, TaskRecords};
use crate::run::tasks;
use crate::scores::ModelStamp;
use crate::selection::{FILE, Selected};

/// What a command does with a configuration beside running it.
#[derive(Clone, Copy)]
pub struct Mode {
    /// Measure nothing that takes long.
    pub plan: bool,
    /// Run on records that head scores may have been made from.
    pub choosing: bool,
    /// Say nothing but what must be said.
    pub quiet: bool,
}

/// Everything that a matrix is made of.
pub struct Ready {
    /// The configuration as it was written.
    pub text: String,
    /// Its methods have their head scores.
    pub config: Config,
    pub model: LanguageModel,
    pub fingerprint: String,
    pub tasks: Vec<TaskRecords>,
    /// Fingerprints of the records.
    pub tested: HashSet<String>,
    /// The run's folder.
    pub folder: PathBuf,
    /// What was chosen for methods with settings to choose from; not yet compared with the configuration.
    pub selected: Option<Selected>,
}

/// Reads a configuration, lets `change` change it, and gets everything ready, what is cheap and may fail first.
pub fn ready(
    path: &Path,
    registry: &Registry,
    mode: Mode,
    change: impl FnOnce(&mut Config) -> Result<()>,
) -> Result<Ready> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| file.clone())?;
    let mut config = Config::parse(&file, &text, registry)?;
    let folder = config.run.run.folder.join(&config.run.name);
    change(&mut config)?;
    let suite = Suite::open(&config.run.data)?;
    let settings = config.run.model.clone();
    let Loaded { model, fingerprint } = load(&settings)?;
    let stamp = ModelStamp::of(&settings.source, &fingerprint, model.config().layout);
    let tasks = tasks(&config.run, suite, &model)?;
    let tested: HashSet<String> =
        tasks.iter().flat_map(|task| task.records.iter().map(|record| record.fingerprint.clone())).collect();
    let open = !mode.choosing && config.columns.iter().any(Column::is_open);
    let selected = if open { Selected::read(&folder)? } else { None };
    if let Some(selected) = &selected {
        check_unseen(&folder.join(FILE).display().to_string(), &selected.seen, &tested)?;
    }
    let forbidden = if mode.choosing { &HashSet::new() } else { &tested };
    let names: Vec<String> = tasks.iter().map(|task| task.protocol.name.clone()).collect();
    let measured = measure_used(&mut config, &model, &stamp, &names, forbidden, mode)?;
    let notices = config.fit_to(&stamp, &names, &measured, forbidden)?;
    notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    Ok(Ready { text, config, model, fingerprint, tasks, tested, folder, selected })
}

/// Head scores of the importance tables that methods use.
fn measure_used(
    config: &mut Config,
    model: &LanguageModel,
    stamp: &ModelStamp,
    tasks: &[String],
    forbidden: &HashSet<String>,
    mode: Mode,
) -> Result<Measured> {
    let used = config.importance_used();
    if used.is_empty() {
        return Ok(Measured::new());
    }
    let mut wanted: Vec<Wanted> = Vec::new();
    for name in used {
        let importance = &config.importance[&name];
        match importance.per_task {
            false => wanted.push(((name, None), importance.of_tasks(importance.settings.tasks.clone()))),
            true => wanted.extend(
                tasks.iter().map(|task| ((name.clone(), Some(task.clone())), importance.of_tasks(vec![task.clone()]))),
            ),
        }
    }
    // Methods that cannot run on this model are found out before anything is measured, whatever the scores will be.
    let layout = model.config().layout;
    let made_up = HeadScores::new(layout, (0..layout.heads()).map(|head| head as f64).collect())?;
    config.fit_to(stamp, tasks, &wanted.iter().map(|(key, _)| (key.clone(), made_up.clone())).collect(), forbidden)?;
    let folder = config.run.run.folder.join("importance");
    measure(&wanted, &folder, model, stamp, &config.run.model.held_as(), forbidden, mode)
}
