//! From a configuration file to methods that can run: the model loaded, records read, head scores measured.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cokv_core::{HeadScores, Registry};
use cokv_models::LanguageModel;
use cokv_shapley::Shard;

use super::load::{Loaded, load};
use super::watcher::Teller;
use crate::config::{Column, Config, check_unseen};
use crate::data::{Suite, TaskRecords};
use crate::importance::Estimation;
use crate::run::tasks;
use crate::scores::show::summary;
use crate::scores::{ModelStamp, ScoreFile};
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
    let measured = measure(&mut config, &model, &stamp, forbidden, mode)?;
    let notices = config.fit_to(&stamp, &measured, forbidden)?;
    notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    Ok(Ready { text, config, model, fingerprint, tasks, tested, folder, selected })
}

/// Head scores of the importance tables that methods use: as measured before, or measured now. A plan measures nothing.
fn measure(
    config: &mut Config,
    model: &LanguageModel,
    stamp: &ModelStamp,
    forbidden: &HashSet<String>,
    mode: Mode,
) -> Result<BTreeMap<String, HeadScores>> {
    let names = config.importance_used();
    let mut measured = BTreeMap::new();
    if names.is_empty() {
        return Ok(measured);
    }
    // Methods that cannot run on this model are found out before anything is measured, whatever the scores will be.
    let layout = model.config().layout;
    let made_up = HeadScores::new(layout, (0..layout.heads()).map(|head| head as f64).collect())?;
    config.fit_to(stamp, &names.iter().map(|name| (name.clone(), made_up.clone())).collect(), forbidden)?;
    let folder = config.run.run.folder.join("importance");
    let mut teller = Teller::new(mode.quiet)?;
    let mut estimations = Vec::with_capacity(names.len());
    for name in names {
        let importance = &config.importance[&name];
        let estimation = Estimation::prepare(importance, model, stamp.clone(), &config.run.model.held_as())
            .with_context(|| format!("[importance.{name}]"))?;
        check_unseen(&format!("[importance.{name}]"), estimation.seen(), forbidden)?;
        estimations.push((name, estimation));
    }
    for (name, estimation) in estimations {
        let (samples, scores) = estimation.fingerprints();
        let scores = folder.join(format!("{name}-{scores}.scores.json"));
        let file = if scores.exists() {
            ScoreFile::read(&scores)?
        } else if mode.plan {
            eprintln!("[importance.{name}] has to be measured first");
            continue;
        } else {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            eprintln!("[importance.{name}] is measured; scores will be in {}", scores.display());
            let samples = folder.join(format!("{name}-{samples}.samples.jsonl"));
            let played = estimation.play(&samples, Shard::WHOLE, &mut teller);
            teller.clear();
            let Some(estimated) = played.with_context(|| format!("[importance.{name}]"))? else {
                bail!("stopped; what was played is in {}; the same command goes on", samples.display());
            };
            estimated.scores.write(&scores)?;
            eprintln!("{}", summary(&estimated.scores));
            estimated.scores
        };
        measured.insert(name, file.head_scores(stamp).map_err(|problem| problem.at(&scores))?);
    }
    Ok(measured)
}
