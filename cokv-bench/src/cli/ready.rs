//! From a configuration file to methods that can run: records read and prompts made, head scores looked up, and, once the
//! model is loaded, the missing ones measured.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use cokv_core::{HeadScores, Registry, Shard};
use cokv_models::LanguageModel;

use super::bar::{bar, fetching};
use super::forecast::{Forecast, Studied};
use super::load::outline;
use super::measure::{Key, Unmeasured, Wanted, look_up, measure};
use super::mode::Mode;
use crate::config::{Column, Config, Measured, MeasuredScores, check_unseen};
use crate::data::Suite;
use crate::data::longbench::Fetcher;
use crate::machine::Pace;
use crate::model::{Beside, Outlined};
use crate::run::{Asked, Matrix, Results, SELECTION, Selected, asked, capped, tasks};
use crate::scores::{HeadScoresWorth, ModelStamp};

/// Everything that a matrix is made of, but the weights of the model.
pub struct Ready {
    /// Methods have their head scores; those that are still to be measured are made up.
    pub config: Config,
    pub model: Outlined,
    /// None where all of the model's files would have to be read for it, which a plan does not do.
    pub fingerprint: Option<String>,
    pub prompts: Vec<Asked>,
    /// Fingerprints of the records.
    pub tested: HashSet<String>,
    /// The run's folder.
    pub folder: PathBuf,
    /// Where measured head scores are kept.
    importance: PathBuf,
    /// What was chosen for methods with settings to choose from; not yet compared with the configuration.
    pub selected: Option<Selected>,
    /// Head scores that are still to be measured.
    pub unmeasured: Vec<Unmeasured>,
    measured: Measured,
    /// Names.
    tasks: Vec<String>,
    mode: Mode,
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
    let model = outline(&config.run.model, mode.plan)?;
    if !mode.plan {
        // Before anything of the weights is read.
        model.check_room(&Beside::default())?;
    }
    let outline = &model.outline;
    let tasks = tasks(&config.run, suite, outline)?;
    if let Some(notice) = capped(&config.run, &tasks, outline) {
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
    // Methods that cannot run on this model are found out before anything long is done.
    let unhashed = ModelStamp::of(&model.settings.source, None, outline.config().layout);
    fit_made_up(&mut config, &unhashed, &names, forbidden)?;
    let preparing = bar(mode.quiet, "{wide_bar} {pos}/{len} prompts tokenised, {eta} left", 0);
    let prompts = asked(&config.run, tasks, outline, |done, of| {
        preparing.set_length(of as u64);
        preparing.set_position(done as u64);
    })?;
    preparing.finish_and_clear();
    let fingerprint = if mode.plan { model.known_fingerprint() } else { Some(model.fingerprint()?) };
    let importance = config.run.run.folder.join("importance");
    let (measured, unmeasured) =
        look_up(&wanted(&config, &names), &importance, &model, fingerprint.as_deref(), forbidden)?;
    let mut ready = Ready {
        config,
        model,
        fingerprint,
        prompts,
        tested,
        folder,
        importance,
        selected,
        unmeasured,
        measured,
        tasks: names,
        mode,
    };
    ready.fit()?;
    Ok(ready)
}

impl Ready {
    /// Measures the head scores that are missing, on the model, loaded.
    pub fn measure(&mut self, model: &LanguageModel) -> Result<()> {
        let missing = std::mem::take(&mut self.unmeasured);
        if !missing.is_empty() {
            self.measured.extend(measure(&missing, model, self.mode.quiet)?);
            self.fit()?;
        }
        Ok(())
    }

    /// Everything that is measured for the methods, whether or not it is there already, in an order that is always the same.
    pub fn tables(&self) -> Vec<Key> {
        wanted(&self.config, &self.tasks).into_iter().map(|(key, _)| key).collect()
    }

    /// Refuses head scores that are still to be measured.
    pub fn check_measured(&self) -> Result<()> {
        match self.unmeasured.first() {
            Some(Unmeasured { title, .. }) => {
                bail!("{title}: its head scores are not measured yet: stage `scores` comes before this one")
            }
            None => Ok(()),
        }
    }

    /// What there is to do with `config`, which is that of this or one like it, for a shard. `selected` says which settings
    /// columns have that list some.
    pub fn forecast(
        &self,
        config: &Config,
        selected: Option<&Selected>,
        results: &Results,
        shard: Shard,
        pace: Option<&Pace>,
    ) -> Result<Forecast> {
        let outline = &self.model.outline;
        let fingerprint = self.fingerprint.as_deref().unwrap_or_default();
        let matrix = Matrix::prepare(config, &self.prompts, outline, fingerprint, selected)?;
        let work = |unmeasured: &Unmeasured| -> Result<Studied> {
            Ok(Studied { title: unmeasured.title.clone(), work: unmeasured.work(pace)? })
        };
        Ok(Forecast {
            studies: self.unmeasured.iter().map(work).collect::<Result<_>>()?,
            matrix: Some(matrix.plan(results, shard, pace)),
            weight_bytes: outline.weights().bytes(self.model.settings.weights),
            looked: self.fingerprint.is_some() || !(self.folder.exists() || self.importance.exists()),
        })
    }

    /// Gives the methods their head scores, made up where they are still to be measured.
    fn fit(&mut self) -> Result<()> {
        let forbidden = if self.mode.choosing { &HashSet::new() } else { &self.tested };
        let layout = self.model.outline.config().layout;
        let stamp = ModelStamp::of(&self.model.settings.source, self.fingerprint.as_deref(), layout);
        let made_up = made_up(&stamp)?;
        let mut scores = self.measured.clone();
        scores.extend(self.unmeasured.iter().map(|unmeasured| (unmeasured.key().clone(), made_up.clone())));
        let notices = self.config.fit_to(&stamp, &self.tasks, &scores, forbidden)?;
        if self.unmeasured.is_empty() || self.mode.plan {
            notices.iter().for_each(|notice| eprintln!("note: {notice}"));
        }
        Ok(())
    }
}

/// Refuses methods that cannot run on a model, whatever the scores will be that are yet to be measured: those are made up.
pub fn fit_made_up(
    config: &mut Config,
    stamp: &ModelStamp,
    tasks: &[String],
    forbidden: &HashSet<String>,
) -> Result<()> {
    let made_up = made_up(stamp)?;
    let measured = wanted(config, tasks).into_iter().map(|(key, _)| (key, made_up.clone())).collect();
    config.fit_to(stamp, tasks, &measured, forbidden)?;
    Ok(())
}

/// Scores of a model's heads that stand for those which are yet to be measured.
fn made_up(stamp: &ModelStamp) -> Result<MeasuredScores> {
    let layout = stamp.layout().map_err(|problem| problem.at(Path::new(&stamp.name)))?;
    let scores = HeadScores::new(layout, (0..layout.heads()).map(|head| head as f64).collect())?;
    Ok(MeasuredScores { scores, worth: HeadScoresWorth::default() })
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
