//! Scores measured: from what to look at, on a loaded model, to a score file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use cokv_core::{
    Coalition, ConfigError, ConfigTable, Evidence, Game, HeadEstimate, HeadScores, ImportanceEstimator, Limits, Named,
    Query, Registry, Shard, Subject,
};
use cokv_models::LanguageModel;
use cokv_models::game::{GameRules, HeadMaskGame};
use cokv_shapley::{DesignError, MOST_ENUMERATED, enumeration, enumeration_time};
use indicatif::HumanDuration;

use super::calibration::Calibration;
use super::estimators::named;
use super::study::{ModelEvidence, OpenStudy, Tells};
use super::{ImportanceError, ImportanceSettings};
use crate::data::longbench::Fetcher;
use crate::event::{Event, Listener};
use crate::fingerprint::{computed_by, fingerprint};
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
            "{} {batch} {reliability} {max_evaluations:?} {minutes:?} {two_run_mae} {allocation_distance}",
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

/// An estimation that only needs to be run.
pub struct Estimation<'a> {
    importance: &'a Importance,
    model: &'a LanguageModel,
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

impl<'a> Estimation<'a> {
    /// Reads and tokenises the records and finds out whether the estimator can work on them. `held_as` says how the model's
    /// weights and cache are held, which changes what is found a little.
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
        let evidence = importance.estimator.evidence();
        let data = settings.data(evidence);
        let calibration = Calibration::open(model, &data, fetcher, &rules, settings.answer_tokens, evidence)?;
        let hash = stamp.fingerprint.as_deref().unwrap_or(&stamp.name);
        let records = calibration.answer_fingerprints(hash, held_as);
        let watched = evidence == Evidence::Answers;
        let fingerprint = match evidence {
            Evidence::Answers => fingerprint(records.clone()),
            Evidence::Coalitions if players.is_empty() => calibration.fingerprint(hash, held_as, &rules),
            Evidence::Coalitions => {
                fingerprint([calibration.fingerprint(hash, held_as, &rules), format!("{players:?}")])
            }
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
            computed_by: computed_by(),
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
        let estimation = Self { importance, model, stamp, calibration, rules, game, players, records, subject };
        match importance.estimator.check(&estimation.subject) {
            Ok(()) => Ok(estimation),
            Err(error) => match error.downcast_ref() {
                Some(DesignError::TooManyPlayers { .. }) => Err(estimation.too_many_heads()?),
                _ => Err(ImportanceError::Estimator(error)),
            },
        }
    }

    /// Hashes of the records that are looked at.
    pub fn seen(&self) -> &[String] {
        &self.game.seen
    }

    /// What there is to do, for people.
    pub fn describe(&self) -> String {
        let ImportanceSettings { reliability, max_evaluations, minutes, .. } = &self.importance.settings;
        let (records, tokens) = (self.calibration.len(), self.calibration.prompt_tokens());
        let first = format!("{records} records, {tokens} tokens to prefill");
        match self.importance.estimator.evidence() {
            Evidence::Answers => format!("{first}, each answered and watched"),
            Evidence::Coalitions => {
                let evaluations = max_evaluations.map(|most| format!(", or {most} evaluations are made"));
                let time = minutes.map(|minutes| format!(", or {minutes} minutes are gone"));
                let limits = [evaluations, time].into_iter().flatten().collect::<String>();
                format!(
                    "{first}, then coalitions until reliability {reliability} and a stable plan are reached{limits}"
                )
            }
        }
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
        log: &Path,
        shard: Shard,
        listener: &mut dyn Listener,
    ) -> Result<Option<Estimated>, ImportanceError> {
        for text in &self.calibration.notices {
            let _ = listener.hear(&Event::Note { text });
        }
        let mut subject = self.subject.clone();
        subject.limits.shard = shard;
        let Self { model, calibration, rules, players, .. } = self;
        let mut study = OpenStudy {
            subject,
            log: log.to_path_buf(),
            tells: Tells(listener),
            evidence: ModelEvidence { model, calibration, rules, players },
            records: self.records.clone(),
            game: None,
        };
        let estimate = self.importance.estimator.estimate(&mut study).map_err(ImportanceError::Estimator)?;
        estimate.map(|estimate| Ok(Estimated { scores: self.score_file(&estimate)?, estimate })).transpose()
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
        file.samples = estimate.samples;
        file.evaluations = estimate.evaluations;
        file.game = Some(self.game.clone());
        Ok(file)
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
        let (players, instances) = (self.subject.players, self.subject.records);
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
