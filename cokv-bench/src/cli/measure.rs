//! `[importance.NAME]` tables, measured when they are first needed.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cokv_core::Shard;
use cokv_models::LanguageModel;

use super::bar::fetching;
use super::mode::Mode;
use super::progress::{Audience, Progress};
use super::stopped::Stopped;
use crate::config::{Measured, MeasuredScores, check_unseen};
use crate::data::longbench::Fetcher;
use crate::importance::{Estimation, Importance};
use crate::scores::show::summary;
use crate::scores::{ModelStamp, ScoreFile};

/// What is to be measured: the table's name, the task where every task has scores of its own, and how.
pub type Wanted = ((String, Option<String>), Importance);

/// Head scores as measured before, where the folder has them, or measured now. A plan measures nothing.
pub fn measure(
    wanted: &[Wanted],
    folder: &Path,
    model: &LanguageModel,
    stamp: &ModelStamp,
    held_as: &str,
    forbidden: &HashSet<String>,
    mode: Mode,
) -> Result<Measured> {
    let mut measured = Measured::new();
    let fetcher = Fetcher::from_env(fetching());
    let mut estimations = Vec::with_capacity(wanted.len());
    for (key, importance) in wanted {
        let title = title(key);
        let estimation =
            Estimation::prepare(importance, model, stamp.clone(), held_as, &fetcher).with_context(|| title.clone())?;
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
            eprintln!("{title} has to be measured first, which is not in the time below: {}", estimation.describe());
            continue;
        } else {
            std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            eprintln!("{title} is measured: {}; scores will be in {}", estimation.describe(), scores.display());
            let samples = match samples_of(&estimation, name, folder)? {
                Some(of_an_earlier_build) => of_an_earlier_build,
                None => folder.join(format!("{name}-{samples}.samples.jsonl")),
            };
            let audience = if mode.quiet { Audience::Nobody } else { Audience::People };
            let played = estimation.run(&samples, Shard::WHOLE, &mut Progress::new(audience)?);
            let Some(estimated) = played.with_context(|| title.clone())? else {
                let message = format!("stopped; what was played is in {}; the same command goes on", samples.display());
                return Err(Stopped(message).into());
            };
            estimated.scores.write(&scores)?;
            eprintln!("{}", summary(&estimated.scores));
            estimated.scores
        };
        let worth = file.worth();
        let scores = file.head_scores(stamp).map_err(|problem| problem.at(&scores))?;
        measured.insert(key.clone(), MeasuredScores { scores, worth });
    }
    Ok(measured)
}

/// Samples that the folder has of this game and plan, whatever build hashed them to their file's name.
fn samples_of(estimation: &Estimation<'_>, name: &str, folder: &Path) -> Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let is_of_table = file.starts_with(&format!("{name}-")) && file.ends_with(".samples.jsonl");
        if is_of_table && estimation.is_log(&path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// What errors and progress call an importance table.
fn title((name, task): &(String, Option<String>)) -> String {
    task.as_ref().map_or(format!("[importance.{name}]"), |task| format!("[importance.{name}] on {task}"))
}
