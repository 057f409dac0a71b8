//! From records to the game that a model plays on them, and from the samples of a game to head scores.

use cokv_core::{Evidence, Frame, GameError};
use cokv_models::game::{GameRecord, GameRules, Scorer, Unplayable};
use cokv_models::{ModelError, Outline, StopRule};
use thiserror::Error;

use crate::data::longbench::Fetcher;
use crate::data::prompt;
use crate::data::{DataError, DataSettings, Protocol, Record, Suite, TaskProtocol, TaskRecords};
use crate::fingerprint::{build, fingerprint};
use crate::model::ModelSettings;

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
    /// Where the parts of their prompts lie.
    frames: Vec<Frame>,
    /// What was left out and why, a line each.
    pub notices: Vec<String>,
    /// Names of the tasks.
    pub tasks: Vec<String>,
}

impl Calibration {
    /// Tokenises the records of all tasks that `data` asks for; where coalitions are played, those are left out on which masking
    /// cannot matter.
    pub fn open(
        model: &Outline,
        data: &DataSettings,
        fetcher: &Fetcher,
        rules: &GameRules,
        answer_tokens: usize,
        evidence: Evidence,
    ) -> Result<Self, CalibrationError> {
        let answer = |protocol: &TaskProtocol| match evidence {
            Evidence::Coalitions => protocol.max_new_tokens.max(answer_tokens).max(rules.agreement_tokens),
            Evidence::Answers => protocol.max_new_tokens,
        };
        let holds = model.config().max_tokens();
        let limit = |protocol: &TaskProtocol| prompt::limit(holds, data.max_prompt_tokens, answer(protocol));
        let mut calibration = Self { records: Vec::new(), frames: Vec::new(), notices: Vec::new(), tasks: Vec::new() };
        let tokens_of = prompt::token_counter(model, data.chat_template);
        for TaskRecords { protocol, records } in Suite::open(data, fetcher)?.tasks(data, limit, &tokens_of)? {
            calibration.tasks.push(protocol.name.clone());
            let task = [(protocol.name.as_str(), answer(&protocol))];
            calibration.notices.extend(prompt::capped(holds, data.max_prompt_tokens, task));
            for record in records {
                let mut built = prompt::build(
                    model,
                    &protocol,
                    &record,
                    limit(&protocol),
                    data.chat_template,
                    Protocol::QuestionSeen,
                )?;
                built.answer.truncate(answer_tokens);
                let stop = prompt::stop_rule(model, &protocol)?;
                let name = format!("{} {}", protocol.name, record.id);
                let frame = built.frame;
                let game_record = GameRecord { name: name.clone(), prompt: built.tokens, answer: built.answer, stop };
                match game_record.playable(rules) {
                    Err(reason) if evidence == Evidence::Coalitions => {
                        calibration.notices.push(left_out(&name, reason))
                    }
                    _ => {
                        calibration.records.push((protocol.clone(), record, game_record));
                        calibration.frames.push(frame);
                    }
                }
            }
        }
        Ok(calibration)
    }

    /// The records as the game takes them.
    pub fn game_records(&self) -> Vec<GameRecord> {
        self.records.iter().map(|(_, _, record)| record.clone()).collect()
    }

    /// A record's prompt, when its answer ends, and its right answers.
    pub fn asked(&self, record: usize) -> (&[u32], &StopRule, &[String]) {
        let (_, record, game) = &self.records[record];
        (&game.prompt, &game.stop, &record.answers)
    }

    /// Where the parts of a record's prompt lie.
    pub fn frame(&self, record: usize) -> Frame {
        self.frames[record]
    }

    /// Hash of all that could change how the model answers each record.
    pub fn answer_fingerprints(&self, model: &str, settings: &ModelSettings) -> Vec<String> {
        let of_record = |(protocol, record, game): &(TaskProtocol, Record, GameRecord)| {
            let [version, backend] = build(settings.device.backend());
            let asked = format!("{} {:?} {:?} {:?}", protocol.name, game.prompt, game.stop, record.answers);
            fingerprint([version, backend, format!("{model} {}", settings.held_as()), asked])
        };
        self.records.iter().map(of_record).collect()
    }

    /// Hashes of the records, for whoever must not be tested on them.
    pub fn seen(&self) -> Vec<String> {
        self.records.iter().map(|(_, record, _)| record.fingerprint.clone()).collect()
    }

    /// Every record's prompt and answer.
    pub(super) fn games(&self) -> impl Iterator<Item = &GameRecord> {
        self.records.iter().map(|(_, _, record)| record)
    }

    /// Tokens of all prompts.
    pub fn prompt_tokens(&self) -> usize {
        self.records.iter().map(|(_, _, record)| record.prompt.len()).sum()
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
    pub fn scorer<'a>(&'a self, model: &'a Outline) -> Scorer<'a> {
        Box::new(move |instance, answer| -> Result<f64, GameError> {
            let (protocol, record, _) = &self.records[instance];
            Ok(protocol.score(&prompt::prediction(model, protocol, answer)?, record))
        })
    }

    /// Hash of all that could change a utility.
    pub fn fingerprint(&self, model: &str, settings: &ModelSettings, rules: &GameRules) -> String {
        let held_as = settings.held_as();
        let GameRules { utility, window, holdout_suffix, agreement_tokens, memory_bytes: _ } = rules;
        let mut parts: Vec<String> = build(settings.device.backend()).into();
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
