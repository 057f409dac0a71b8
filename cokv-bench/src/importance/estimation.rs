//! Scores measured: from what to play, on a loaded model, to a score file.

use std::path::Path;
use std::time::Instant;

use cokv_core::{Coalition, ConfigError, ConfigTable, Game, Named, Query, Shard};
use cokv_models::LanguageModel;
use cokv_models::game::{GameRules, HeadMaskGame};
use cokv_shapley::games::Restricted;
use cokv_shapley::{
    DesignError, Estimate, Estimator, FitError, Kept, LogFile, LogHeader, MOST_ENUMERATED, Notice, Outcome,
    PlaySettings, Progress, SampleLog, SamplingPlan, Stop, enumeration, enumeration_time, estimator, play,
};
use indicatif::HumanDuration;

use super::calibration::{Calibration, score_file};
use super::{ImportanceError, ImportanceSettings};
use crate::data::longbench::Fetcher;
use crate::event::{Event, Listener};
use crate::fingerprint::{computed_by, fingerprint};
use crate::scores::{GameStamp, ModelStamp, ScoreFile};

/// What to play, and what to make of it.
#[derive(Clone, Debug)]
pub struct Importance {
    /// What is played.
    pub settings: ImportanceSettings,
    /// What turns samples into values.
    pub estimator: Named<dyn Estimator>,
    /// Whether every task of the run gets scores of its own, measured on records of that task.
    pub per_task: bool,
}

impl Importance {
    /// Reads a table `[importance.NAME]`.
    pub fn read(mut table: ConfigTable<'_>) -> Result<Self, ConfigError> {
        let estimator = match table.take_choice("estimator")? {
            Some(choice) => estimator(&choice)?,
            None => estimator(&cokv_core::config::Choice::named(cokv_shapley::NAMES[0], &table))?,
        };
        let per_task = table.take_flag("per_task")?;
        if per_task && table.contains("tasks") {
            let message = "`tasks` contradicts `per_task`, which takes the tasks of the run";
            return Err(table.error_at("tasks", message));
        }
        let mut settings = ImportanceSettings::read(table.clone())?;
        if per_task {
            // Until the tasks are known.
            settings.records.tasks = vec!["all".into()];
        }
        settings.check().map_err(|(key, message)| table.error_at(key, message))?;
        Ok(Self { settings, estimator, per_task })
    }

    /// The same on these tasks.
    pub fn of_tasks(&self, tasks: Vec<String>) -> Self {
        let mut settings = self.settings.clone();
        settings.records.tasks = tasks;
        Self { settings, estimator: self.estimator.clone(), per_task: false }
    }

    /// The table that reads back to this, every default written out.
    pub fn written(&self) -> Result<toml::Table, toml::ser::Error> {
        let mut table = toml::Table::try_from(&self.settings)?;
        table.insert("estimator".into(), self.estimator.settings().table().clone().into());
        if self.per_task {
            table.remove("tasks");
            table.insert("per_task".into(), true.into());
        }
        Ok(table)
    }

    /// Everything that the scores depend on beside the samples' header.
    fn definition(&self) -> String {
        let ImportanceSettings {
            reliability, max_evaluations, minutes, two_run_mae, allocation_distance, batch, ..
        } = &self.settings;
        // Rounds, between which stop rules are looked at, depend on the batch.
        format!(
            "{} {batch} {reliability} {max_evaluations:?} {minutes:?} {two_run_mae} {allocation_distance:?}",
            self.estimator.settings()
        )
    }
}

fn played(progress: &Progress) -> Event<'static> {
    Event::Played {
        samples: progress.samples,
        evaluations_per_second: progress.new_evaluations as f64 / progress.elapsed.as_secs_f64().max(1e-9),
        reliability: progress.estimate.as_ref().map(|estimate| estimate.reliability),
        seconds_left: progress.remaining.map(|remaining| remaining.as_secs_f64()),
    }
}

/// What came out of an estimation.
#[derive(Debug)]
pub struct Estimated {
    /// What the heads are worth.
    pub scores: ScoreFile,
    /// The same in flat order, with what it cost.
    pub estimate: Estimate,
    /// Why the play ended.
    pub outcome: Outcome,
    /// All samples.
    pub log: SampleLog,
}

/// An estimation that only needs to be played.
pub struct Estimation<'a> {
    importance: &'a Importance,
    model: &'a LanguageModel,
    stamp: ModelStamp,
    calibration: Calibration,
    rules: GameRules,
    game: GameStamp,
    /// Flat indices of the heads that play; empty for all of them.
    players: Vec<usize>,
    plan: SamplingPlan,
}

impl<'a> Estimation<'a> {
    /// Reads and tokenises the records and finds out whether the game can be played. `held_as` says how the model's
    /// weights and cache are held, which changes utilities a little; `fetcher` brings records that are not on disk.
    pub fn prepare(
        importance: &'a Importance,
        model: &'a LanguageModel,
        stamp: ModelStamp,
        held_as: &str,
        fetcher: &Fetcher,
    ) -> Result<Self, ImportanceError> {
        let settings = &importance.settings;
        let layout = model.config().layout;
        let players = settings.heads.iter().map(|head| head.flat(layout)).collect::<Result<Vec<usize>, _>>()?;
        if let Some(twice) = (1..players.len()).find(|&place| players[..place].contains(&players[place])) {
            return Err(ImportanceError::Settings(format!("head {} is named twice", settings.heads[twice])));
        }
        // All heads are the game itself, in the order of the model.
        let players = if players.len() == layout.heads() { Vec::new() } else { players };
        let rules = GameRules {
            utility: settings.utility,
            window: settings.window,
            holdout_suffix: settings.holdout_suffix,
            memory_bytes: GameRules::memory_of(model),
            ..GameRules::default()
        };
        let calibration = Calibration::open(model, &settings.data(), fetcher, &rules, settings.answer_tokens)?;
        let fingerprint = {
            let model = stamp.fingerprint.as_deref().unwrap_or(&stamp.name);
            let game = calibration.fingerprint(model, held_as, &rules);
            if players.is_empty() { game } else { fingerprint([game, format!("{players:?}")]) }
        };
        let game = GameStamp {
            fingerprint,
            utility: settings.utility.name().into(),
            window: rules.window,
            holdout_suffix: rules.holdout_suffix,
            tasks: calibration.tasks.clone(),
            records: calibration.len(),
            seen: calibration.seen(),
        };
        let count = if players.is_empty() { layout.heads() } else { players.len() };
        let plan = SamplingPlan {
            players: count,
            instances: calibration.len().max(1),
            instances_per_sample: settings.records_per_pair,
            seed: settings.seed,
            design: settings.design.clone().unwrap_or_else(|| importance.estimator.design(count)),
        };
        let estimation = Self { importance, model, stamp, calibration, rules, game, players, plan };
        // An empty log shows what is wrong with the design before anything is prefilled.
        let fitted = match SampleLog::new(estimation.header()) {
            Err(DesignError::TooManyPlayers { .. }) => return Err(estimation.too_many_heads()?),
            empty => importance.estimator.fit(&empty?),
        };
        match fitted {
            Err(error @ FitError::Design { .. }) => Err(error.into()),
            _ => Ok(estimation),
        }
    }

    /// Hashes of the records that are played.
    pub fn seen(&self) -> &[String] {
        &self.game.seen
    }

    /// Which game, and how it is sampled: what a file of samples begins with.
    pub fn header(&self) -> LogHeader {
        LogHeader {
            computed_by: Some(computed_by()),
            ..LogHeader::new(self.game.fingerprint.clone(), self.plan.clone())
        }
    }

    /// Hashes of what the samples depend on, and of what the scores do.
    pub fn fingerprints(&self) -> (String, String) {
        let LogHeader { game, plan, .. } = self.header();
        let SamplingPlan { players, instances, instances_per_sample, seed, design } = plan;
        let samples = fingerprint([game, format!("{players} {instances} {instances_per_sample} {seed} {design}")]);
        let scores = fingerprint([samples.clone(), self.importance.definition()]);
        (samples, scores)
    }

    /// Prefills the records and plays until a stop rule is met; none if the listener broke it off before, or if the samples
    /// of a shard say nothing without those of the others.
    ///
    /// The samples that the file holds already are not played again.
    pub fn play(
        &self,
        samples: &Path,
        shard: Shard,
        listener: &mut dyn Listener,
    ) -> Result<Option<Estimated>, ImportanceError> {
        let mut note = |text: &str| {
            let _ = listener.hear(&Event::Note { text });
        };
        self.calibration.notices.iter().for_each(|notice| note(notice));
        let (mut file, mut log, notices) = LogFile::open(samples, &self.header())?;
        let tell = |notice: &Notice| format!("{}: {notice}", samples.display());
        notices.iter().for_each(|notice| note(&tell(notice)));
        if !log.is_empty() {
            let _ = listener.hear(&Event::Resumed { samples: log.len() });
        }
        let settings = &self.importance.settings;
        let records = self.calibration.game_records();
        let tokens: usize = records.iter().map(|record| record.prompt.len()).sum();
        let scorer = Some(self.calibration.scorer(self.model));
        let started = Instant::now();
        let mut game = HeadMaskGame::prepare(self.model, records, self.rules.clone(), scorer, |done| {
            let _ = listener.hear(&Event::Prefilled { tokens: done.tokens, of: tokens });
        })?;
        let (heads, records, seconds) = (self.plan.players, game.instances(), started.elapsed().as_secs_f64());
        let _ = listener.hear(&Event::Playing { heads, records, seconds });

        let play_settings = PlaySettings {
            shard,
            stop: Stop {
                reliability: Some(settings.reliability),
                evaluations: settings.max_evaluations,
                time: settings.time()?,
                two_run_mae: settings.two_run_mae,
                allocation_distance: settings.allocation_distance,
            },
            batch: settings.batch.min(game.batch_limit()),
            // A batch for every record, so that forward passes are full.
            round: (self.calibration.len() * settings.batch / self.plan.evaluations_per_sample() as usize).max(1),
        };
        let all = self.model.config().layout.heads();
        let others = Coalition::from_members(all, self.players.iter().copied()).complement();
        let mut restricted;
        let game: &mut dyn Game = if self.players.is_empty() {
            &mut game
        } else {
            restricted = Restricted::new(&mut game, self.players.clone(), others)?;
            &mut restricted
        };
        let estimator = &*self.importance.estimator;
        let outcome = play(
            game,
            &mut log,
            estimator,
            &play_settings,
            &mut |kept| match kept {
                Kept::Ends(ends) => file.append_ends(ends),
                Kept::Sample(sample) => file.append(sample),
            },
            &mut |progress| listener.hear(&played(progress)),
        )?;
        if outcome == Outcome::Interrupted {
            return Ok(None);
        }
        match score_file(self.stamp.clone(), self.game.clone(), &self.players, estimator, &log) {
            // A shard of a finite design is done without knowing enough.
            Err(FitError::TooFewSamples { .. }) if shard != Shard::WHOLE => Ok(None),
            fitted => {
                fitted.map(|(scores, estimate)| Some(Estimated { scores, estimate, outcome, log })).map_err(Into::into)
            }
        }
    }

    /// How far out of reach an enumeration is, from the time that a batch of coalitions takes on one record.
    fn too_many_heads(&self) -> Result<ImportanceError, ImportanceError> {
        const COALITIONS: usize = 8;
        let scorer = Some(self.calibration.scorer(self.model));
        let first = self.calibration.game_records().into_iter().take(1).collect();
        let mut game = HeadMaskGame::prepare(self.model, first, self.rules.clone(), scorer, |_| ())?;
        let coalition = Coalition::full(game.players());
        let queries = [Query { coalition: &coalition, instance: 0 }; COALITIONS];
        let started = Instant::now();
        game.evaluate(&queries, &mut [0.0; COALITIONS]).map_err(ImportanceError::Game)?;
        let seconds = started.elapsed().as_secs_f64() / COALITIONS as f64;
        let (players, instances) = (self.plan.players, self.plan.instances);
        let time = match enumeration_time(players, instances, seconds) {
            Some(time) => HumanDuration(time).to_string(),
            None => "more years than the universe is old".into(),
        };
        Ok(ImportanceError::TooManyHeads {
            heads: players,
            records: instances,
            evaluations: enumeration(players, instances),
            time,
            most: MOST_ENUMERATED,
        })
    }
}
