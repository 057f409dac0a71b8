//! From records to the game that a model plays on them, and from the samples of a game to head scores.

use cokv_core::GameError;
use cokv_models::game::{GameRecord, GameRules, Scorer, Unplayable};
use cokv_models::{LanguageModel, ModelError};
use cokv_shapley::{Estimate, Estimator, FitError, SampleLog, interactions};
use thiserror::Error;

use crate::data::longbench::Fetcher;
use crate::data::prompt;
use crate::data::{DataError, DataSettings, Record, Suite, TaskProtocol, TaskRecords};
use crate::fingerprint::{build, fingerprint};
use crate::metrics;
use crate::scores::{GameStamp, Interaction, ModelStamp, ScoreFile};

/// Heads whose pairs are looked at.
const INTERACTING_HEADS: usize = 14;

/// Why there is nothing to calibrate on.
#[derive(Debug, Error)]
pub enum CalibrationError {
    /// The records cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A record cannot be tokenised.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Records that tell something about heads, with what scores their answers.
#[derive(Debug)]
pub struct Calibration {
    records: Vec<(TaskProtocol, Record, GameRecord)>,
    /// What was left out and why, a line each.
    pub notices: Vec<String>,
    /// Names of the tasks.
    pub tasks: Vec<String>,
}

impl Calibration {
    /// Tokenises the records of all tasks that `data` asks for and leaves out those on which masking cannot matter.
    pub fn open(
        model: &LanguageModel,
        data: &DataSettings,
        fetcher: &Fetcher,
        rules: &GameRules,
        answer_tokens: usize,
    ) -> Result<Self, CalibrationError> {
        let limit = |protocol: &TaskProtocol| {
            let answer = protocol.max_new_tokens.max(answer_tokens).max(rules.agreement_tokens);
            data.max_prompt_tokens.unwrap_or_else(|| prompt::room(model, answer))
        };
        let mut calibration = Self { records: Vec::new(), notices: Vec::new(), tasks: Vec::new() };
        let tokens_of = prompt::token_counter(model, data.chat_template);
        for TaskRecords { protocol, records } in Suite::open(data, fetcher)?.tasks(data, limit, &tokens_of)? {
            calibration.tasks.push(protocol.name.clone());
            for record in records {
                let mut built = prompt::build(model, &protocol, &record, limit(&protocol), data.chat_template)?;
                built.answer.truncate(answer_tokens);
                let stop = prompt::stop_rule(model, &protocol)?;
                let name = format!("{} {}", protocol.name, record.id);
                let game_record = GameRecord { name: name.clone(), prompt: built.tokens, answer: built.answer, stop };
                match game_record.playable(rules) {
                    Ok(()) => calibration.records.push((protocol.clone(), record, game_record)),
                    Err(reason) => calibration.notices.push(left_out(&name, reason)),
                }
            }
        }
        Ok(calibration)
    }

    /// The records as the game takes them.
    pub fn game_records(&self) -> Vec<GameRecord> {
        self.records.iter().map(|(_, _, record)| record.clone()).collect()
    }

    /// Hashes of the records, for whoever must not be tested on them.
    pub fn seen(&self) -> Vec<String> {
        self.records.iter().map(|(_, record, _)| record.fingerprint.clone()).collect()
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether no record is left.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Decodes and scores answers as the benchmark does.
    pub fn scorer<'a>(&'a self, model: &'a LanguageModel) -> Scorer<'a> {
        Box::new(move |instance, answer| -> Result<f64, GameError> {
            let (protocol, record, _) = &self.records[instance];
            let prediction = model.tokenizer().decode(answer, true)?;
            let Record { answers, all_classes, .. } = record;
            Ok(metrics::score_prediction(&protocol.name, protocol.metric, &prediction, answers, all_classes))
        })
    }

    /// Hash of all that could change a utility.
    pub fn fingerprint(&self, model: &str, held_as: &str, rules: &GameRules) -> String {
        let GameRules { utility, window, holdout_suffix, agreement_tokens, memory_bytes: _ } = rules;
        let mut parts: Vec<String> = build().into();
        parts.push(format!("{model} {held_as} {utility:?} {window} {holdout_suffix} {agreement_tokens}"));
        for (protocol, record, game_record) in &self.records {
            parts
                .push(format!("{} {:?} {:?} {:?}", protocol.name, protocol.metric, record.answers, record.all_classes));
            parts.push(format!("{:?} {:?} {:?}", game_record.prompt, game_record.answer, game_record.stop));
        }
        fingerprint(parts)
    }
}

fn left_out(name: &str, reason: Unplayable) -> String {
    format!("{name} is left out: {reason}")
}

/// A score file of what the samples say now. `players` are the flat indices of the heads that played, if not all did.
pub fn score_file(
    model: ModelStamp,
    game: GameStamp,
    players: &[usize],
    estimator: &dyn Estimator,
    log: &SampleLog,
) -> Result<(ScoreFile, Estimate), FitError> {
    let estimate = estimator.fit(log)?;
    let heads = model.layers * model.kv_heads;
    let flat = |player: usize| players.get(player).copied().unwrap_or(player);
    let head = |player: usize| [flat(player) / model.kv_heads, flat(player) % model.kv_heads];
    let spread = |values: &[f64]| {
        let mut all = vec![0.0; heads];
        values.iter().enumerate().for_each(|(player, &value)| all[flat(player)] = value);
        all
    };
    let (values, errors) = (spread(&estimate.values), spread(&estimate.standard_errors));
    // A log too short or without pairs says nothing about pairs of heads, and that is no error.
    let found = interactions(log, &estimate.values, INTERACTING_HEADS).unwrap_or_default();
    let interactions = found
        .iter()
        .map(|pair| Interaction { first: head(pair.first), second: head(pair.second), effect: pair.effect, t: pair.t })
        .collect();
    let split_half = cokv_shapley::diagnostics::split_half(log, estimator).ok();
    let mut file = ScoreFile {
        players: (0..players.len()).map(head).collect(),
        ..ScoreFile::new(model.clone(), estimator.name(), &values).with_standard_errors(&errors)
    };
    file.reliability = Some(estimate.reliability);
    file.split_half = split_half.as_ref().map(|halves| halves.spearman).filter(|correlation| correlation.is_finite());
    file.allocation_distance = split_half.map(|halves| halves.allocation_distance);
    file.samples = Some(estimate.samples);
    file.evaluations = Some(estimate.evaluations);
    file.game = Some(game);
    file.interactions = interactions;
    Ok((file, estimate))
}
