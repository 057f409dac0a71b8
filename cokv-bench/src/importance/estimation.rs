//! Scores measured: from what to look at, checked on a model's outline, to a score file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cokv_core::{
    ConfigError, ConfigTable, Effort, Evidence, HeadEstimate, HeadScores, ImportanceEstimator, Limits, Named, Registry,
    Shard, Subject,
};
use cokv_models::game::GameRules;
use cokv_models::{LanguageModel, Outline};
use cokv_shapley::{DesignError, MOST_ENUMERATED, READING, enumeration, enumeration_time};
use indicatif::HumanDuration;

use super::calibration::Calibration;
use super::estimators::named;
use super::study::{ModelEvidence, OpenStudy, Tells};
use super::workload::{Work, Workload};
use super::{ImportanceError, ImportanceSettings};
use crate::data::longbench::Fetcher;
use crate::event::{Event, Listener};
use crate::fingerprint::{computed_by, fingerprint};
use crate::machine::Pace;
use crate::model::{ModelSettings, Outlined};
use crate::scores::{GameStamp, Interaction, ModelStamp, ScoreFile};

/// What to look at, and what to make of it.
#[derive(Clone, Debug)]
pub struct Importance {
    /// What is looked at.
    pub settings: ImportanceSettings,
    /// What turns it into values.
    pub estimator: Named<dyn ImportanceEstimator>,
    /// Whether every task of the run gets scores of its own, measured on records of that task.
    pub per_task: bool,
}

impl Importance {
    /// Reads a table `[importance.NAME]`.
    pub fn read(mut table: ConfigTable<'_>, registry: &Registry) -> Result<Self, ConfigError> {
        let whole = table.clone();
        let choice = table.take_choice("estimator")?;
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
        let choice = choice.unwrap_or_else(|| cokv_core::config::Choice::named(cokv_shapley::NAMES[0], &whole));
        let estimator = named(&choice, &settings, registry)?;
        settings.check(estimator.evidence()).map_err(|(key, message)| table.error_at(key, message))?;
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
        table.extend(toml::Table::try_from(&self.settings.records)?);
        table.insert("estimator".into(), self.estimator.settings().table().clone().into());
        if self.per_task {
            table.remove("tasks");
            table.insert("per_task".into(), true.into());
        }
        Ok(table)
    }

    /// Everything that the scores depend on beside the samples' header.
    fn definition(&self) -> String {
        let ImportanceSettings { reliability, max_evaluations, minutes, two_run_mae, batch, .. } = &self.settings;
        let ImportanceSettings { allocation_distance, drop_lowest, pilot, prior_scores, .. } = &self.settings;
        // What the file held when it was read; without one, as it always was.
        let prior = prior_scores.as_ref().map(|path| fingerprint([format!("{:?}", ScoreFile::read(path).ok())]));
        // Rounds, between which stop rules are looked at, depend on the batch.
        format!(
            "{} {READING} {batch} {reliability} {max_evaluations:?} {minutes:?} {two_run_mae} {allocation_distance} \
             {drop_lowest:?} {pilot} {prior:?}",
            self.estimator.settings()
        )
    }
}

/// What came out of an estimation.
#[derive(Debug)]
pub struct Estimated {
    /// What the heads are worth.
    pub scores: ScoreFile,
    /// The same as the estimator said it, with what it cost.
    pub estimate: HeadEstimate,
}

/// Settings that make a game what it is, as options call them.
fn about(
    settings: &ImportanceSettings,
    calibration: &Calibration,
    stamp: &ModelStamp,
    held_as: &str,
) -> BTreeMap<String, String> {
    let ImportanceSettings { records, utility, window, holdout_suffix, answer_tokens, heads, .. } = settings;
    let heads: Vec<String> = heads.iter().map(ToString::to_string).collect();
    let parts = [
        ("model", stamp.name.clone()),
        ("weights and cache", held_as.to_owned()),
        ("data", records.source.clone()),
        ("task", calibration.tasks.join(", ")),
        ("records", calibration.len().to_string()),
        ("context-tokens", format!("{:?}", records.context_tokens)),
        ("data-seed", format!("{:?}", records.data_seed)),
        ("max-prompt-tokens", format!("{:?}", records.max_prompt_tokens)),
        ("utility", utility.name().to_owned()),
        ("window", window.to_string()),
        ("holdout-suffix", holdout_suffix.to_string()),
        ("answer-tokens", answer_tokens.to_string()),
        ("heads", heads.join(",")),
    ];
    parts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// An estimation that only needs a model to run on.
pub struct Estimation {
    importance: Importance,
    model: ModelSettings,
    outline: Arc<Outline>,
    stamp: ModelStamp,
    calibration: Calibration,
    rules: GameRules,
    game: GameStamp,
    /// Flat indices of the heads that play; empty for all of them.
    players: Vec<usize>,
    /// Hashes of what each record's answer depends on.
    records: Vec<String>,
    subject: Subject,
}

impl Estimation {
    /// Reads and tokenises the records and finds out whether the estimator can work on them. Without a `fingerprint` of the
    /// model nothing that was found before can be found again.
    pub fn prepare(
        importance: &Importance,
        model: &Outlined,
        fingerprint_of_model: Option<&str>,
        fetcher: &Fetcher,
    ) -> Result<Self, ImportanceError> {
        let outline = &model.outline;
        let (held, held_as) = (&model.settings, &model.settings.held_as());
        let layout = outline.config().layout;
        let stamp = ModelStamp::of(&model.settings.source, fingerprint_of_model, layout);
        let settings = &importance.settings;
        if let Some(path) = &settings.prior_scores {
            let scored = ScoreFile::read(path)?.model;
            let expected = |reason: String| ImportanceError::OtherPrior { path: path.clone(), reason };
            if scored.layout().map_err(|problem| problem.at(path))? != layout {
                return Err(expected(format!("its scores are of {scored}, and this model is {stamp}")));
            }
            if let Some(notice) = scored.notice(&stamp) {
                return Err(expected(notice));
            }
        }
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
            ..GameRules::default()
        };
        let evidence = importance.estimator.evidence();
        let data = settings.data(evidence);
        let calibration = Calibration::open(outline, &data, fetcher, &rules, settings.answer_tokens, evidence)?;
        let hash = stamp.fingerprint.as_deref().unwrap_or(&stamp.name);
        let records = calibration.answer_fingerprints(hash, held);
        let watched = evidence == Evidence::Answers;
        let fingerprint = match evidence {
            Evidence::Answers => fingerprint(records.clone()),
            Evidence::Coalitions if players.is_empty() => calibration.fingerprint(hash, held, &rules),
            Evidence::Coalitions => fingerprint([calibration.fingerprint(hash, held, &rules), format!("{players:?}")]),
        };
        let game = GameStamp {
            fingerprint: fingerprint.clone(),
            utility: if watched { "attention" } else { settings.utility.name() }.into(),
            window: if watched { 0 } else { rules.window },
            holdout_suffix: rules.holdout_suffix,
            tasks: calibration.tasks.clone(),
            records: calibration.len(),
            seen: calibration.seen(),
        };
        let subject = Subject {
            layout,
            players: if players.is_empty() { layout.heads() } else { players.len() },
            records: calibration.len(),
            fingerprint,
            computed_by: computed_by(held.device.backend()),
            about: about(settings, &calibration, &stamp, held_as),
            limits: Limits {
                seed: settings.seed,
                reliability: settings.reliability,
                evaluations: settings.max_evaluations,
                time: settings.time()?,
                batch: settings.batch,
                shard: Shard::WHOLE,
            },
        };
        let estimation = Self {
            importance: importance.clone(),
            model: model.settings.clone(),
            outline: Arc::clone(outline),
            stamp,
            calibration,
            rules,
            game,
            players,
            records,
            subject,
        };
        match importance.estimator.check(&estimation.subject) {
            Ok(()) => Ok(estimation),
            Err(error) => match error.downcast_ref() {
                Some(DesignError::TooManyPlayers { .. }) => Err(estimation.too_many_heads(model.pace().as_ref())),
                _ => Err(ImportanceError::Estimator(error)),
            },
        }
    }

    /// What is done to which tasks, for people.
    pub fn title(&self) -> String {
        format!("{} on {}", self.importance.estimator.settings().name(), self.calibration.tasks.join(", "))
    }

    /// The model whose heads are scored.
    pub fn model(&self) -> &ModelStamp {
        &self.stamp
    }

    /// Hashes of the records that are looked at.
    pub fn seen(&self) -> &[String] {
        &self.game.seen
    }

    /// What there is to do, with the samples that `log` has already, at a model's pace.
    pub fn work(&self, log: Option<&Path>, shard: Shard, pace: Option<&Pace>) -> Result<Work, ImportanceError> {
        let mut subject = self.subject.clone();
        subject.limits.shard = shard;
        let effort = self.importance.estimator.effort(&subject, &self.records, log);
        let workload = Workload {
            records: self.calibration.games().collect(),
            evidence: self.importance.estimator.evidence(),
            rules: &self.rules,
            limits: &subject.limits,
            config: self.outline.config(),
            format: self.model.cache,
        };
        Ok(workload.work(effort.map_err(ImportanceError::Estimator)?, pace))
    }

    /// Whether shards of it can be looked at apart.
    pub fn is_shared(&self) -> bool {
        self.importance.estimator.is_shared(&self.subject)
    }

    /// Limits it to a shard of the evaluations of a wave, the first of which has as many as it takes at least, and each that follows
    /// twice as many as the one before.
    pub fn limit_to(&mut self, shard: Shard, wave: u32) -> Result<(), ImportanceError> {
        let effort = self.importance.estimator.effort(&self.subject, &self.records, None);
        if let Some(Effort { least, most, .. }) = effort.map_err(ImportanceError::Estimator)? {
            let doubled = least.saturating_mul(1 << wave.saturating_sub(1).min(62));
            self.subject.limits.evaluations = most.into_iter().chain([doubled]).min();
        }
        self.subject.limits.shard = shard;
        Ok(())
    }

    /// Writes what several logs hold for the shard into a new one: see [`ImportanceEstimator::join`].
    pub fn join(&self, logs: &[PathBuf], into: &Path) -> Result<Vec<String>, ImportanceError> {
        self.importance.estimator.join(logs, into, &self.subject).map_err(ImportanceError::Estimator)
    }

    /// Whether several logs hold all that the whole needs.
    pub fn is_enough(&self, logs: &[PathBuf]) -> Result<bool, ImportanceError> {
        self.importance.estimator.is_enough(logs, &self.subject).map_err(ImportanceError::Estimator)
    }

    /// Hashes of what the log depends on, and of what the scores do.
    pub fn fingerprints(&self) -> (String, String) {
        let key = self.importance.estimator.log_key(&self.subject);
        let log = fingerprint([self.subject.fingerprint.clone(), key]);
        let scores = fingerprint([log.clone(), self.importance.definition()]);
        (log, scores)
    }

    /// Whether a file is a log of this estimation, whatever it is called.
    pub fn is_log(&self, path: &Path) -> Result<bool, ImportanceError> {
        self.importance.estimator.is_log(path, &self.subject).map_err(ImportanceError::Estimator)
    }

    /// Looks at the records until the estimator knows enough; none if the listener broke it off before, or if what a shard
    /// knows says nothing without the others'. What the log holds already is not done again.
    pub fn run(
        &self,
        model: &LanguageModel,
        log: &Path,
        shard: Shard,
        listener: &mut dyn Listener,
    ) -> Result<Option<Estimated>, ImportanceError> {
        for text in &self.calibration.notices {
            let _ = listener.hear(&Event::Note { text });
        }
        let mut subject = self.subject.clone();
        subject.limits.shard = shard;
        let Self { calibration, players, .. } = self;
        let rules = &GameRules { memory_bytes: GameRules::memory_of(model), ..self.rules.clone() };
        let mut study = OpenStudy {
            subject,
            log: log.to_path_buf(),
            tells: Tells(listener),
            evidence: ModelEvidence { model, calibration, rules, players },
            records: self.records.clone(),
            game: None,
        };
        let estimate = self.importance.estimator.estimate(&mut study).map_err(ImportanceError::Estimator)?;
        if let Some(text) = estimate.as_ref().and_then(|estimate| self.silence(&estimate.silent)) {
            let _ = study.tells.0.hear(&Event::Note { text: &text });
        }
        estimate.map(|estimate| Ok(Estimated { scores: self.score_file(&estimate)?, estimate })).transpose()
    }

    /// Which records tell next to nothing, for people; none where all of them tell something.
    fn silence(&self, silent: &[usize]) -> Option<String> {
        let names: Vec<&str> = self
            .calibration
            .games()
            .enumerate()
            .filter(|(at, _)| silent.contains(at))
            .map(|(_, game)| game.name.as_str())
            .collect();
        let all = self.calibration.len();
        (!names.is_empty()).then(|| {
            format!(
                "{} of {all} records carry signal; with these it hardly matters which heads see the prompt: {}. The utility \
                 `retention` asks less of the model",
                all - names.len(),
                names.join(", ")
            )
        })
    }

    fn score_file(&self, estimate: &HeadEstimate) -> Result<ScoreFile, ImportanceError> {
        let layout = self.subject.layout;
        let flat = |player: usize| self.players.get(player).copied().unwrap_or(player);
        let head = |player: usize| [flat(player) / layout.kv_heads, flat(player) % layout.kv_heads];
        let spread = |values: &[f64]| {
            let mut all = vec![0.0; layout.heads()];
            values.iter().enumerate().for_each(|(player, &value)| all[flat(player)] = value);
            all
        };
        let expected = match self.importance.estimator.evidence() {
            Evidence::Coalitions => self.subject.players,
            Evidence::Answers => layout.layers * layout.query_heads,
        };
        let lengths = [Some(estimate.values.len()), estimate.standard_errors.as_ref().map(Vec::len)];
        if let Some(found) = lengths.into_iter().flatten().find(|&found| found != expected) {
            return Err(ImportanceError::WrongLength { found, expected });
        }
        let (values, errors) = match self.importance.estimator.evidence() {
            Evidence::Coalitions => (spread(&estimate.values), estimate.standard_errors.as_deref().map(spread)),
            Evidence::Answers => (HeadScores::per_query_head(layout, estimate.values.clone())?.values().to_vec(), None),
        };
        let name = self.importance.estimator.settings().name();
        let mut file = ScoreFile::new(self.stamp.clone(), name, &values);
        if let Some(errors) = errors {
            file = file.with_standard_errors(&errors);
        }
        let pairs = estimate.pairs.iter();
        file.interactions = pairs
            .map(|pair| Interaction {
                first: head(pair.first),
                second: head(pair.second),
                effect: pair.effect,
                t: pair.t,
            })
            .collect();
        file.players = (0..self.players.len()).map(head).collect();
        file.reliability = estimate.reliability;
        file.split_half = estimate.split_half;
        file.allocation_distance = estimate.allocation_distance;
        file.reliability_of_others = estimate.reliability_of_others;
        file.tokens_to_move = estimate.tokens_to_move;
        let silent = Some(estimate.silent.len()).filter(|_| estimate.samples.is_some());
        file.records_with_signal = silent.map(|silent| self.calibration.len() - silent);
        file.samples = estimate.samples;
        file.evaluations = estimate.evaluations;
        file.game = Some(self.game.clone());
        Ok(file)
    }

    /// How far out of reach an enumeration is.
    fn too_many_heads(&self, pace: Option<&Pace>) -> ImportanceError {
        let (heads, records) = (self.subject.players, self.subject.records);
        let seconds = self.work(None, Shard::WHOLE, pace).ok().and_then(|work| work.seconds_of_an_evaluation);
        let time = match seconds.map(|seconds| enumeration_time(heads, records, seconds)) {
            Some(Some(time)) => format!(", about {} on this machine", HumanDuration(time)),
            Some(None) => ", more years than the universe is old".into(),
            None => String::new(),
        };
        ImportanceError::TooManyHeads {
            heads,
            records,
            evaluations: enumeration(heads, records),
            time,
            most: MOST_ENUMERATED,
        }
    }
}
