//! What an estimator sees of a model and its records: a game that is prefilled when it is first played, and answers that are
//! watched.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use cokv_core::{
    Answered, Coalition, Game, GameError, LayerView, ObservationRequest, PolicyError, Replay, Study, Subject, Teller,
    Told,
};
use cokv_models::LanguageModel;
use cokv_models::cache::RaggedCache;
use cokv_models::game::{GameRules, HeadMaskGame};
use cokv_shapley::games::Restricted;

use super::calibration::Calibration;
use crate::event::{Event, Listener};

/// A study that is open: its log is somebody's, and somebody listens.
pub(super) struct OpenStudy<'a> {
    pub subject: Subject,
    pub log: PathBuf,
    pub tells: Tells<'a>,
    pub evidence: ModelEvidence<'a>,
    /// Hashes of what each record's answer depends on.
    pub records: Vec<String>,
    pub game: Option<Box<dyn Game + 'a>>,
}

/// What a model and records can show.
#[derive(Clone, Copy)]
pub(super) struct ModelEvidence<'a> {
    pub model: &'a LanguageModel,
    pub calibration: &'a Calibration,
    pub rules: &'a GameRules,
    /// Flat indices of the heads that play; empty for all of them.
    pub players: &'a [usize],
}

/// Tells a listener what an estimator tells.
pub(super) struct Tells<'a>(pub &'a mut dyn Listener);

impl Teller for Tells<'_> {
    fn tell(&mut self, told: &Told<'_>) -> ControlFlow<()> {
        self.0.hear(&match *told {
            Told::Note(text) => Event::Note { text },
            Told::Resumed(samples) => Event::Resumed { samples },
            Told::Played { samples, evaluations_per_second, reliability, seconds_left } => {
                Event::Played { samples, evaluations_per_second, reliability, seconds_left }
            }
            Told::Looked { records, of } => Event::Looked { records, of },
        })
    }
}

impl<'a> ModelEvidence<'a> {
    /// The game, once every record is prefilled.
    fn game(self, tells: &mut Tells<'_>) -> Result<Box<dyn Game + 'a>, GameError> {
        let Self { model, calibration, rules, players } = self;
        let records = calibration.game_records();
        let of: usize = records.iter().map(|record| record.prompt.len()).sum();
        let scorer = Some(calibration.scorer(model.outline()));
        let started = Instant::now();
        let game = HeadMaskGame::prepare(model, records, rules.clone(), scorer, |done| {
            let _ = tells.0.hear(&Event::Prefilled { tokens: done.tokens, of });
        })?;
        let records = game.instances();
        let all = game.players();
        let game: Box<dyn Game + 'a> = if players.is_empty() {
            Box::new(game)
        } else {
            let others = Coalition::from_members(all, players.iter().copied()).complement();
            Box::new(Restricted::new(game, players.to_vec(), others)?)
        };
        let (heads, seconds) = (game.players(), started.elapsed().as_secs_f64());
        let _ = tells.0.hear(&Event::Playing { heads, records, seconds });
        Ok(game)
    }
}

impl Teller for OpenStudy<'_> {
    fn tell(&mut self, told: &Told<'_>) -> ControlFlow<()> {
        self.tells.tell(told)
    }
}

impl Study for OpenStudy<'_> {
    fn subject(&self) -> &Subject {
        &self.subject
    }

    fn log(&self) -> &Path {
        &self.log
    }

    fn game(&mut self) -> Result<(&mut dyn Game, &mut dyn Teller), GameError> {
        let Self { evidence, tells, game, .. } = self;
        let game = match game {
            Some(game) => game,
            none => none.insert(evidence.game(tells)?),
        };
        Ok((game.as_mut(), tells))
    }

    fn record(&self, record: usize) -> &str {
        &self.records[record]
    }

    fn answer(&mut self, record: usize) -> Result<Answered, GameError> {
        let ModelEvidence { model, calibration, .. } = self.evidence;
        let (prompt, stop, answers) = calibration.asked(record);
        let prefill = model.prefill(prompt, ObservationRequest::default(), |_| ())?;
        let mut cache = [RaggedCache::full(prefill.prompt())];
        let said = model.greedy(&mut cache, &[prefill.first(stop)], stop, |_, _| ControlFlow::Continue(()))?;
        let said = said.into_iter().next().unwrap_or_default();
        Ok(Answered {
            prompt: prompt.to_vec(),
            pieces: model.tokenizer().pieces(prompt)?,
            prediction: model.tokenizer().decode(&said, true)?,
            said,
            answers: answers.to_vec(),
        })
    }

    fn attention(
        &mut self,
        record: usize,
        said: &[u32],
        see: &mut dyn FnMut(&LayerView<'_>) -> Result<(), PolicyError>,
    ) -> Result<(), GameError> {
        let ModelEvidence { model, calibration, .. } = self.evidence;
        let (prompt, ..) = calibration.asked(record);
        // The last token said was never a query.
        let seen = [prompt, &said[..said.len().saturating_sub(1)]].concat();
        let request = ObservationRequest { window: said.len(), ..Default::default() };
        let prefill = model.prefill(&seen, request, |_| ())?;
        for layer in 0..self.subject.layout.layers {
            prefill.view(layer, |view| see(view))??;
        }
        Ok(())
    }

    fn repeated(
        &mut self,
        record: usize,
        replay: &Replay,
        see: &mut dyn FnMut(&LayerView<'_>) -> Result<(), PolicyError>,
    ) -> Result<(), GameError> {
        let ModelEvidence { model, calibration, .. } = self.evidence;
        let ((prompt, ..), frame) = (calibration.asked(record), calibration.frame(record));
        let mut prefill = model.prefill(prompt, ObservationRequest::default(), |_| ())?.within(frame);
        model.replay(&mut prefill, replay, &prompt[prompt.len() - frame.tail..], |_, _| ())?;
        for layer in 0..self.subject.layout.layers {
            prefill.view(layer, |view| see(view))??;
        }
        Ok(())
    }
}
