//! From a configuration file to methods that can run: the model loaded, records read, head scores measured.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use cokv_core::{HeadScores, Registry};
use cokv_models::LanguageModel;

use super::bar::fetching;
use super::load::load;
use super::measure::{Wanted, measure};
use super::mode::Mode;
use crate::config::{Column, Config, Measured, MeasuredScores, check_unseen};
use crate::data::longbench::Fetcher;
use crate::data::{Suite, TaskRecords};
use crate::model::Loaded;
use crate::run::{SELECTION, Selected, capped, tasks};
use crate::scores::{HeadScoresWorth, ModelStamp};

/// Everything that a matrix is made of.
pub struct Ready {
    /// Methods have their head scores.
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

/// A configuration, as it was written and as it is meant.
pub fn read(path: &Path, registry: &Registry) -> Result<(String, Config)> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            ErrorKind::NotFound => "; give --config FILE; cokv bench --help shows one",
            _ => "",
        };
        anyhow!("{file}: {error}{hint}")
    })?;
    let config = Config::parse(&file, &text, registry)?;
    Ok((text, config))
}

/// Gets everything ready that a configuration asks for on its present model, what is cheap and may fail first.
pub fn ready(mut config: Config, mode: Mode) -> Result<Ready> {
    let folder = config.folder();
    let suite = Suite::open(&config.run.data, &Fetcher::from_env(fetching()))?;
    suite.notices().iter().filter(|_| !mode.quiet).for_each(|notice| eprintln!("note: {notice}"));
    let settings = config.run.model.clone();
    let Loaded { model, fingerprint } = load(&settings)?;
    let stamp = ModelStamp::of(&settings.source, &fingerprint, model.config().layout);
    let tasks = tasks(&config.run, suite, &model)?;
    if let Some(notice) = capped(&config.run, &tasks, &model) {
        eprintln!("note: {notice}");
    }
    let tested: HashSet<String> =
        tasks.iter().flat_map(|task| task.records.iter().map(|record| record.fingerprint.clone())).collect();
    let open = !mode.choosing && config.columns.iter().any(Column::is_open);
    let selected = if open { Selected::read(&folder)? } else { None };
    if let Some(selected) = &selected {
        check_unseen(&folder.join(SELECTION).display().to_string(), &selected.seen, &tested)?;
    }
    let forbidden = if mode.choosing { &HashSet::new() } else { &tested };
    let names: Vec<String> = tasks.iter().map(|task| task.protocol.name.clone()).collect();
    let measured = measure_used(&mut config, &model, &stamp, &names, forbidden, mode)?;
    let notices = config.fit_to(&stamp, &names, &measured, forbidden)?;
    notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    Ok(Ready { config, model, fingerprint, tasks, tested, folder, selected })
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
    let wanted = wanted(config, tasks);
    if wanted.is_empty() {
        return Ok(Measured::new());
    }
    // Methods that cannot run on this model are found out before anything is measured.
    fit_made_up(config, stamp, tasks, forbidden)?;
    let folder = config.run.run.folder.join("importance");
    measure(&wanted, &folder, model, stamp, &config.run.model.held_as(), forbidden, mode)
}

/// Refuses methods that cannot run on a model, whatever the scores will be that are yet to be measured: those are made up.
pub fn fit_made_up(
    config: &mut Config,
    stamp: &ModelStamp,
    tasks: &[String],
    forbidden: &HashSet<String>,
) -> Result<()> {
    let layout = stamp.layout().map_err(|problem| problem.at(Path::new(&stamp.name)))?;
    let made_up = HeadScores::new(layout, (0..layout.heads()).map(|head| head as f64).collect())?;
    let made_up = MeasuredScores { scores: made_up, worth: HeadScoresWorth::default() };
    let measured = wanted(config, tasks).into_iter().map(|(key, _)| (key, made_up.clone())).collect();
    config.fit_to(stamp, tasks, &measured, forbidden)?;
    Ok(())
}

/// What is to be measured for the methods.
fn wanted(config: &Config, tasks: &[String]) -> Vec<Wanted> {
    let mut wanted: Vec<Wanted> = Vec::new();
    for name in config.importance_used() {
        let importance = &config.importance[&name];
        match importance.per_task {
            false => wanted.push(((name, None), importance.of_tasks(importance.settings.records.tasks.clone()))),
            true => wanted.extend(
                tasks.iter().map(|task| ((name.clone(), Some(task.clone())), importance.of_tasks(vec![task.clone()]))),
            ),
        }
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_configuration_says_where_to_name_one() {
        let folder = tempfile::tempdir().unwrap();
        let error = |path: &Path| read(path, &cokv_policies::registry()).err().unwrap().to_string();
        let missing = error(&folder.path().join("cokv.toml"));
        assert!(
            missing.contains("cokv.toml: ") && missing.contains("; give --config FILE; cokv bench --help"),
            "{missing}"
        );
        assert!(!error(folder.path()).contains("--config"), "a folder is there");
    }
}
