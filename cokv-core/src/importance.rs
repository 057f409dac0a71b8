//! Finding out offline what each KV head is worth.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::{Game, GameError, HeadLayout, LayerView, PolicyError, Replay, Shard};

/// Finds out what each KV head of a model is worth, from what a [`Study`] shows of it.
///
/// A new estimator is one file: a struct with its settings (`serde`, unknown keys denied), this trait, and one line in a
/// registry. `cokv estimate --estimator NAME` and `[importance.…]` tables then run it.
///
/// ```
/// use cokv_core::{Coalition, GameError, HeadEstimate, ImportanceEstimator, Query, Study};
///
/// /// What is lost where a head alone is missing.
/// #[derive(Debug)]
/// struct LeaveOneOut;
///
/// impl ImportanceEstimator for LeaveOneOut {
///     fn estimate(&self, study: &mut dyn Study) -> Result<Option<HeadEstimate>, GameError> {
///         let players = study.subject().players;
///         let (game, _) = study.game()?;
///         let mut utility = |coalition: &Coalition| {
///             let mut utilities = vec![0.0; game.instances()];
///             let query = |instance| Query { coalition, instance };
///             game.evaluate(&(0..utilities.len()).map(query).collect::<Vec<_>>(), &mut utilities)?;
///             Ok::<_, GameError>(utilities.iter().sum::<f64>() / utilities.len() as f64)
///         };
///         let all = utility(&Coalition::full(players))?;
///         let without = |player| Coalition::from_members(players, [player]).complement();
///         let lost = (0..players).map(|player| Ok(all - utility(&without(player))?));
///         let values = lost.collect::<Result<_, GameError>>()?;
///         Ok(Some(HeadEstimate { values, summary: "every head was left out once".into(), ..HeadEstimate::default() }))
///     }
/// }
/// ```
pub trait ImportanceEstimator: Debug + Send + Sync {
    /// What the model has to do for it.
    fn evidence(&self) -> Evidence {
        Evidence::Coalitions
    }

    /// What can be seen to be wrong before anything is run.
    fn check(&self, _subject: &Subject) -> Result<(), GameError> {
        Ok(())
    }

    /// What its log depends on beside the subject's fingerprint: under another text begins another log.
    fn log_key(&self, _subject: &Subject) -> String {
        String::new()
    }

    /// Whether a file is a log of this estimator on this subject, whatever it is called.
    fn is_log(&self, _log: &Path, _subject: &Subject) -> Result<bool, GameError> {
        Ok(false)
    }

    /// How much there is to look at, and how much of it `log` holds already, for whoever plans a study; none where the
    /// estimator cannot say. `records` are hashes of what each record's answer depends on; without a log nothing is done yet.
    fn effort(
        &self,
        _subject: &Subject,
        _records: &[String],
        _log: Option<&Path>,
    ) -> Result<Option<Effort>, GameError> {
        Ok(None)
    }

    /// Whether shards of this subject can be studied apart, by [`Limits::shard`], and their logs joined: [`join`](Self::join). What is
    /// not shared out is studied by one process.
    fn is_shared(&self, _subject: &Subject) -> bool {
        false
    }

    /// Writes what several logs hold for the subject's shard into a new one; for the whole of it, no more than a study that was
    /// not shared out would have looked at. Returns what the user should know.
    ///
    /// # Errors
    /// Where logs cannot be joined: of another subject, or of an estimator that does not share.
    fn join(&self, _logs: &[PathBuf], _into: &Path, _subject: &Subject) -> Result<Vec<String>, GameError> {
        Err("this estimator does not share its work out".into())
    }

    /// Whether several logs hold all that the whole study needs, so that nobody has to look at more.
    fn is_enough(&self, _logs: &[PathBuf], _subject: &Subject) -> Result<bool, GameError> {
        Ok(false)
    }

    /// What the heads are worth; none where the study was broken off, or where what is known says nothing yet.
    ///
    /// Whatever takes long is appended to [`Study::log`] and found there again, so that a study that was stopped goes on.
    fn estimate(&self, study: &mut dyn Study) -> Result<Option<HeadEstimate>, GameError>;
}

/// What a model does in a study.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// It plays: what does it achieve when only some heads see the whole prompt? [`Study::game`].
    Coalitions,
    /// It answers, and is watched meanwhile: [`Study::answer`], [`Study::attention`].
    Answers,
}

/// What a study takes, in evaluations (a coalition on a record), or in records that are answered and watched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effort {
    /// Before it can end.
    pub least: u64,
    /// When it ends whatever it has found by then; none where nothing but what it finds ends it.
    pub most: Option<u64>,
    /// Of those, what was done before.
    pub done: u64,
}

/// What is studied.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Heads of the model.
    pub layout: HeadLayout,
    /// Players of the game: all KV heads in flat order, or those that were chosen.
    pub players: usize,
    /// Records.
    pub records: usize,
    /// Hash of the model, the records, and all else that could change what is found.
    pub fingerprint: String,
    /// What computes, for people.
    pub computed_by: String,
    /// Settings that the fingerprint is of, by their names, for people.
    pub about: BTreeMap<String, String>,
    /// How much may be done.
    pub limits: Limits,
}

/// How much a study may take, as its user says.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Seed of all random choices.
    pub seed: u64,
    /// Enough reliability (squared correlation with the true values).
    pub reliability: f64,
    /// Evaluations (one coalition on one record) at most, those of earlier runs and of all shards included.
    pub evaluations: Option<u64>,
    /// Time of this run at most.
    pub time: Option<Duration>,
    /// Coalitions of one forward pass at most.
    pub batch: usize,
    /// Which part of the work is ours.
    pub shard: Shard,
}

/// What an estimator may look at.
///
/// ```
/// use cokv_core::{GameError, Study};
///
/// /// How many tokens the model says of each record.
/// fn lengths(study: &mut dyn Study) -> Result<Vec<usize>, GameError> {
///     (0..study.subject().records).map(|record| Ok(study.answer(record)?.said.len())).collect()
/// }
/// ```
pub trait Study: Teller {
    /// What is studied.
    fn subject(&self) -> &Subject;

    /// A file for what the estimator keeps. Nobody else touches it.
    fn log(&self) -> &Path;

    /// The game of the records, which are prefilled when it is first asked for, and who is told how it goes.
    fn game(&mut self) -> Result<(&mut dyn Game, &mut dyn Teller), GameError>;

    /// Hash of all that a record's answer depends on.
    fn record(&self, record: usize) -> &str;

    /// Lets the model answer a record.
    fn answer(&mut self, record: usize) -> Result<Answered, GameError>;

    /// Shows every layer while the model says this after the record's prompt: `window_attention` has a row for each token
    /// of `said`, that of the query from which it came.
    fn attention(
        &mut self,
        record: usize,
        said: &[u32],
        see: &mut dyn FnMut(&LayerView<'_>) -> Result<(), PolicyError>,
    ) -> Result<(), GameError>;

    /// Lets the model repeat a record's prompt, and shows what it looked at meanwhile, layer by layer.
    ///
    /// # Errors
    /// Where a study cannot show it.
    fn repeated(
        &mut self,
        _record: usize,
        _replay: &Replay,
        _see: &mut dyn FnMut(&LayerView<'_>) -> Result<(), PolicyError>,
    ) -> Result<(), GameError> {
        Err("this study does not let the model repeat its prompts".into())
    }
}

/// A record that the model has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// The same as text, piece by piece.
    pub pieces: Vec<String>,
    /// Tokens of the answer.
    pub said: Vec<u32>,
    /// The same as text.
    pub prediction: String,
    /// Right answers.
    pub answers: Vec<String>,
}

/// Hears how a study goes.
///
/// ```
/// use std::ops::ControlFlow;
///
/// use cokv_core::{Teller, Told};
///
/// /// Has seen enough after so many samples.
/// struct Patience(u64);
///
/// impl Teller for Patience {
///     fn tell(&mut self, told: &Told<'_>) -> ControlFlow<()> {
///         match told {
///             Told::Played { samples, .. } if *samples >= self.0 => ControlFlow::Break(()),
///             _ => ControlFlow::Continue(()),
///         }
///     }
/// }
///
/// assert!(Patience(3).tell(&Told::Note("half of the heads are alike")).is_continue());
/// ```
pub trait Teller {
    /// Something happened. Breaking asks the estimator to stop; what it has kept stays.
    fn tell(&mut self, told: &Told<'_>) -> ControlFlow<()>;
}

/// What happens in a study.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Told<'a> {
    /// Something that the user should know.
    Note(&'a str),
    /// The log held so many samples before.
    Resumed(usize),
    /// A batch of coalitions is played and kept.
    Played {
        /// Samples so far.
        samples: u64,
        /// Coalitions on records, in a second.
        evaluations_per_second: f64,
        /// As far as it is known.
        reliability: Option<f64>,
        /// As far as it can be foreseen.
        seconds_left: Option<f64>,
    },
    /// A record is looked at and kept.
    Looked {
        /// Records so far.
        records: usize,
        /// Of how many.
        of: usize,
    },
}

/// What the heads are worth, and how sure that is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeadEstimate {
    /// One for each player of the game; or for each query head, `[layers, query_heads]`, where those were watched.
    pub values: Vec<f64>,
    /// One for each value; none where nothing is known of them. Score files leave out those of query heads: how sure the mean of
    /// a group is depends on how its heads vary together.
    pub standard_errors: Option<Vec<f64>>,
    /// Squared correlation with the true values.
    pub reliability: Option<f64>,
    /// Rank correlation between the values of two halves of the samples.
    pub split_half: Option<f64>,
    /// Share of all tokens that two halves of the samples give to different heads.
    pub allocation_distance: Option<f64>,
    /// As `reliability`, among all heads but the five strongest, which decide that of all.
    pub reliability_of_others: Option<f64>,
    /// Share of all tokens that is expected to go to other heads if the true values were known.
    pub tokens_to_move: Option<f64>,
    /// Records, counted from 0, that tell next to nothing: their utilities hardly depend on the coalition.
    pub silent: Vec<usize>,
    /// Samples that it comes from.
    pub samples: Option<u64>,
    /// Evaluations that it took.
    pub evaluations: Option<u64>,
    /// Pairs of players that are worth more, or less, together than apart.
    pub pairs: Vec<HeadPair>,
    /// One sentence about how it ended.
    pub summary: String,
}

/// Two players together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HeadPair {
    /// One.
    pub first: usize,
    /// The other.
    pub second: usize,
    /// What they achieve together beyond what they achieve apart.
    pub effect: f64,
    /// The same over its standard error.
    pub t: f64,
}
