//! `[importance.NAME]` tables: what was measured of them, and measuring the rest.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cokv_core::Shard;
use cokv_models::LanguageModel;

use super::bar::fetching;
use super::forecast::study;
use super::progress::{Audience, Progress};
use super::stopped::Stopped;
use crate::config::{Measured, MeasuredScores, check_unseen};
use crate::data::longbench::Fetcher;
use crate::importance::{Estimation, Importance, Work};
use crate::machine::Pace;
use crate::model::Outlined;
use crate::run::{files_in, new_file};
use crate::scores::show::summary;
use crate::scores::{ModelStamp, ScoreFile};

/// The table's name, and the task where every task has scores of its own.
pub type Key = (String, Option<String>);

/// What is to be measured, and how.
pub type Wanted = (Key, Importance);

/// Head scores that are still to be measured.
pub struct Unmeasured {
    key: Key,
    /// What errors and progress call the table.
    pub title: String,
    estimation: Estimation,
    folder: PathBuf,
    /// The samples of an earlier run, or where they will be; none where the model's fingerprint is not known.
    samples: Option<PathBuf>,
}

/// Head scores as measured before, where the folder has them, and those that are missing. Without the model's fingerprint
/// it is not known what the folder has.
pub fn look_up(
    wanted: &[Wanted],
    folder: &Path,
    model: &Outlined,
    fingerprint: Option<&str>,
    forbidden: &HashSet<String>,
) -> Result<(Measured, Vec<Unmeasured>)> {
    let (mut measured, mut missing) = (Measured::new(), Vec::new());
    let fetcher = Fetcher::from_env(fetching());
    // A node that did not find a file remembers that for a while, until it lists the folder.
    let _ = std::fs::read_dir(folder).map(Iterator::count);
    for (key, importance) in wanted {
        let title = title(key);
        let estimation =
            Estimation::prepare(importance, model, fingerprint, &fetcher).with_context(|| title.clone())?;
        check_unseen(&title, estimation.seen(), forbidden)?;
        let mut unmeasured =
            Unmeasured { key: key.clone(), title, estimation, folder: folder.to_path_buf(), samples: None };
        if fingerprint.is_some() {
            let scores = unmeasured.scores();
            if scores.exists() {
                let scores = unmeasured.usable(&ScoreFile::read(&scores)?)?;
                measured.insert(key.clone(), scores);
                continue;
            }
            unmeasured.samples = Some(unmeasured.find_samples()?);
        }
        missing.push(unmeasured);
    }
    Ok((measured, missing))
}

/// Measures what is missing.
pub fn measure(missing: &[Unmeasured], model: &LanguageModel, quiet: bool) -> Result<Measured> {
    missing.iter().map(|unmeasured| Ok((unmeasured.key.clone(), unmeasured.measure(model, quiet)?))).collect()
}

impl Unmeasured {
    /// Whose scores they are.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// What there is left to do.
    pub fn work(&self, pace: Option<&Pace>) -> Result<Work> {
        self.estimation.work(self.samples.as_deref(), Shard::WHOLE, pace).with_context(|| self.title.clone())
    }

    /// Where tasks of a cluster keep what they have measured of it, each in files of its own.
    fn parts(&self) -> PathBuf {
        let (samples, _) = self.estimation.fingerprints();
        self.folder.join("parts").join(format!("{}-{samples}", self.key.0))
    }

    /// Everything that was measured of it, by whomever.
    fn logs(&self) -> Result<Vec<PathBuf>> {
        let mut logs = vec![self.find_samples()?];
        logs.extend(files_in(&self.parts(), |file| file.ends_with(".samples.jsonl"))?);
        Ok(logs)
    }

    /// Limits it to a shard of a wave. None where nothing is left to be measured of that, or where it is not shared out.
    pub fn share(mut self, shard: Shard, wave: u32) -> Result<Option<Share>> {
        if !self.estimation.is_shared() || (wave > 1 && self.estimation.is_enough(&self.logs()?)?) {
            return Ok(None);
        }
        let logs = self.logs()?;
        if shard != Shard::WHOLE {
            self.estimation.limit_to(shard, wave).with_context(|| self.title.clone())?;
        }
        let name = format!("{}-of-{}", shard.index + 1, shard.count);
        let parts = self.parts();
        let samples = new_file(&parts, &name, ".samples.jsonl").with_context(|| parts.display().to_string())?;
        self.estimation.join(&logs, &samples).with_context(|| self.title.clone())?;
        let work = self.estimation.work(Some(&samples), shard, None).with_context(|| self.title.clone())?;
        if work.evaluations.is_some_and(|left| left.most == Some(0)) {
            std::fs::remove_file(&samples).with_context(|| samples.display().to_string())?;
            return Ok(None);
        }
        Ok(Some(Share { unmeasured: self, shard, samples, work }))
    }

    /// Puts what tasks have measured into the file that a run goes on from.
    pub fn join(&self) -> Result<()> {
        let (logs, samples) = (self.logs()?, self.find_samples()?);
        if logs.len() == 1 || !self.estimation.is_shared() {
            return Ok(());
        }
        let parts = self.parts();
        let joined = new_file(&parts, "joined", ".jsonl").with_context(|| parts.display().to_string())?;
        let notices = self.estimation.join(&logs, &joined).with_context(|| self.title.clone())?;
        notices.iter().for_each(|notice| eprintln!("note: {notice}"));
        std::fs::rename(&joined, &samples).with_context(|| samples.display().to_string())
    }

    fn measure(&self, model: &LanguageModel, quiet: bool) -> Result<MeasuredScores> {
        let Self { title, estimation, folder, .. } = self;
        let (samples, scores) = (self.find_samples()?, self.scores());
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let work = estimation.work(Some(&samples), Shard::WHOLE, None).with_context(|| title.clone())?;
        eprintln!("{title} is measured: {}; scores will be in {}", study(&work), scores.display());
        let audience = if quiet { Audience::Nobody } else { Audience::People };
        let played = estimation.run(model, &samples, Shard::WHOLE, &mut Progress::new(audience)?);
        let Some(estimated) = played.with_context(|| title.clone())? else {
            let message = format!("stopped; what was played is in {}; the same command goes on", samples.display());
            return Err(Stopped(message).into());
        };
        estimated.scores.write(&scores)?;
        eprintln!("{}", summary(&estimated.scores));
        self.usable(&estimated.scores)
    }

    /// The file of the scores.
    fn scores(&self) -> PathBuf {
        let (_, scores) = self.estimation.fingerprints();
        self.folder.join(format!("{}-{scores}.scores.json", self.key.0))
    }

    fn usable(&self, file: &ScoreFile) -> Result<MeasuredScores> {
        let stamp: &ModelStamp = self.estimation.model();
        let scores = file.head_scores(stamp).map_err(|problem| problem.at(&self.scores()))?;
        Ok(MeasuredScores { scores, worth: file.worth() })
    }

    /// The samples that the folder has of this game and plan, whatever build hashed them to their file's name; or where
    /// they will be.
    fn find_samples(&self) -> Result<PathBuf> {
        let (folder, name) = (&self.folder, &self.key.0);
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            entries => Some(entries.with_context(|| folder.display().to_string())?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let is_of_table = file.starts_with(&format!("{name}-")) && file.ends_with(".samples.jsonl");
            if is_of_table && self.estimation.is_log(&path)? {
                return Ok(path);
            }
        }
        let (samples, _) = self.estimation.fingerprints();
        Ok(folder.join(format!("{name}-{samples}.samples.jsonl")))
    }
}

/// A task's share of something that is measured.
pub struct Share {
    unmeasured: Unmeasured,
    shard: Shard,
    /// The task's own file.
    samples: PathBuf,
    /// What there is to do.
    pub work: Work,
}

impl Share {
    /// Measures it.
    pub fn measure(&self, model: &LanguageModel) -> Result<()> {
        let Self { unmeasured: Unmeasured { title, estimation, .. }, shard, samples, work } = self;
        eprintln!("{title}, part {} of {}: {}", shard.index + 1, shard.count, study(work));
        let mut progress = Progress::new(Audience::People)?;
        estimation.run(model, samples, *shard, &mut progress).with_context(|| title.clone())?;
        match progress.stopped() {
            true => Err(Stopped(format!("stopped; what was played is in {}", samples.display())).into()),
            false => Ok(()),
        }
    }
}

fn title((name, task): &Key) -> String {
    task.as_ref().map_or(format!("[importance.{name}]"), |task| format!("[importance.{name}] on {task}"))
}
