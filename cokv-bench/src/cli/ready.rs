//! From a configuration file to methods that can run: the model loaded, records read, head scores measured.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cokv_core::{HeadScores, Registry};
use cokv_models::LanguageModel;
use cokv_shapley::Shard;

use super::load::{Loaded, load};
use super::watcher::Teller;
use crate::config::{Column, Config, Measured, check_unseen};
use crate::data::{Suite, TaskRecords};
use crate::importance::{Estimation, Importance};
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
    let names: Vec<String> = tasks.iter().map(|task| task.protocol.name.clone()).collect();
    let measured = measure(&mut config, &model, &stamp, &names, forbidden, mode)?;
    let notices = config.fit_to(&stamp, &names, &measured, forbidden)?;
    notices.iter().for_each(|notice| eprintln!("note: {notice}"));
    Ok(Ready { text, config, model, fingerprint, tasks, tested, folder, selected })
}

/// Head scores of the importance tables that methods use: as measured before, or measured now. A plan measures nothing.
fn measure(
    config: &mut Config,
    model: &LanguageModel,
    stamp: &ModelStamp,
    tasks: &[String],
    forbidden: &HashSet<String>,
    mode: Mode,
) -> Result<Measured> {
    let used = config.importance_used();
    let mut measured = Measured::new();
    if used.is_empty() {
        return Ok(measured);
    }
    let mut wanted: Vec<((String, Option<String>), Importance)> = Vec::new();
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
    let mut teller = Teller::new(mode.quiet)?;
    let mut estimations = Vec::with_capacity(wanted.len());
    for (key, importance) in &wanted {
        let title = title(key);
        let estimation = Estimation::prepare(importance, model, stamp.clone(), &config.run.model.held_as())
            .with_context(|| title.clone())?;
        check_unseen(&title, estimation.seen(), forbidden)?;
        estimations.push((key, title, estimation));
    }
    for (key, title, estimation) in estimations {
        let (samples, scores) = estimation.fingerprints();
        let name = &key.0;
        let scores = folder.join(format!("{name}-{scores}.scores.json"));
        let file = if scores.exists() {
            ScoreFile::read(&scores)?
        } else if mode.plan {
            eprintln!("{title} has to be measured first");
            continue;
        } else {
            std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            eprintln!("{title} is measured; scores will be in {}", scores.display());
            let samples = folder.join(format!("{name}-{samples}.samples.jsonl"));
            let played = estimation.play(&samples, Shard::WHOLE, &mut teller);
            teller.clear();
            let Some(estimated) = played.with_context(|| title.clone())? else {
                bail!("stopped; what was played is in {}; the same command goes on", samples.display());
            };
            estimated.scores.write(&scores)?;
            eprintln!("{}", summary(&estimated.scores));
            estimated.scores
        };
        measured.insert(key.clone(), file.head_scores(stamp).map_err(|problem| problem.at(&scores))?);
    }
    Ok(measured)
}

/// What errors and progress call an importance table.
fn title((name, task): &(String, Option<String>)) -> String {
    task.as_ref().map_or(format!("[importance.{name}]"), |task| format!("[importance.{name}] on {task}"))
}
