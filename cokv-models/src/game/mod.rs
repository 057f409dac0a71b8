//! The game that a model plays: what does it achieve on a record when only some KV heads see the whole prompt?
//!
//! A head outside the coalition sees the last `window` prompt tokens and all that comes after the prompt (CoKV,
//! arXiv 2502.17501, section 4). The prompt itself is prefilled once, with full attention; every coalition is a set of
//! slices of that one cache, and many coalitions are the rows of one forward pass.

mod kind;
mod record;
mod utility;

use cokv_core::{Coalition, Game, GameError, Query};
use thiserror::Error;

pub use self::kind::UtilityKind;
pub use self::record::{GameRecord, Unplayable};
use self::record::{Prepared, cache_bytes};
pub use self::utility::Scorer;
use self::utility::utilities;
use crate::cache::RaggedCache;
use crate::error::ModelError;
use crate::ledger::Ledger;
use crate::model::LanguageModel;

/// The rules of the game.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GameRules {
    /// What is measured of a coalition.
    pub utility: UtilityKind,
    /// Last prompt tokens that every head sees; 8 in the paper.
    pub window: usize,
    /// Last prompt tokens that are processed after compression instead of being prefilled. With 0 the first answer token
    /// comes from the prefill, so that no coalition can change it and utilities score the tokens after it.
    pub holdout_suffix: usize,
    /// Tokens of the full cache's own answer that `agreement` and `retention` compare.
    pub agreement_tokens: usize,
    /// Memory that the prompts' caches and one batch may take, if there is a limit.
    pub memory_bytes: Option<u64>,
}

impl GameRules {
    /// Four fifths of what the model's device may still give: a game leaves something to everybody else.
    pub fn memory_of(model: &LanguageModel) -> Option<u64> {
        Ledger::of_free(model.engine().free_bytes(), 0.8).limit()
    }
}

impl Default for GameRules {
    fn default() -> Self {
        Self { utility: UtilityKind::default(), window: 8, holdout_suffix: 0, agreement_tokens: 16, memory_bytes: None }
    }
}

/// Why a game cannot be played.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HeadMaskError {
    /// There is nothing to play on.
    #[error("no record to play on: a game needs at least one with an answer that masking can change")]
    NoRecords,
    /// A record that tells nothing.
    #[error("record {record}: {reason}")]
    Unplayable {
        /// Its name.
        record: String,
        /// Why not.
        reason: Unplayable,
    },
    /// Nobody can say how good an answer is.
    #[error("the utility `metric` needs a scorer of answers")]
    NoScorer,
    /// The prompts' caches do not fit.
    #[error(
        "the caches of {records} prompts ({tokens} tokens) take {} MiB and {} MiB are free; use fewer or shorter \
         records, or cache = \"f16\"", needed >> 20, free >> 20
    )]
    TooLarge {
        /// Prompts to be held.
        records: usize,
        /// Their tokens.
        tokens: usize,
        /// Bytes of their caches.
        needed: u64,
        /// Bytes allowed.
        free: u64,
    },
    /// The coalition is of another game.
    #[error("a coalition of {found} players was asked about in a game of {expected}")]
    WrongPlayers {
        /// Players of the coalition.
        found: usize,
        /// KV heads of the model.
        expected: usize,
    },
    /// The instance is not in the game.
    #[error("record {0} was asked about in a game of {1} records")]
    UnknownInstance(usize, usize),
    /// The model failed.
    #[error("record {record}: {error}")]
    Model {
        /// Name of the record.
        record: String,
        /// What failed.
        error: Box<ModelError>,
    },
}

/// Tells how preparing goes.
#[derive(Clone, Copy, Debug)]
pub struct Preparing {
    /// Records done.
    pub records: usize,
    /// Prompt tokens prefilled, over all records.
    pub tokens: usize,
}

/// KV heads as players, prefilled records as instances.
pub struct HeadMaskGame<'a> {
    model: &'a LanguageModel,
    rules: GameRules,
    scorer: Option<Scorer<'a>>,
    records: Vec<Prepared>,
}

impl<'a> HeadMaskGame<'a> {
    /// Prefills every record once; `scorer` is what the utility `metric` asks. Refuses what cannot be played and what does not fit before the first of them.
    pub fn prepare(
        model: &'a LanguageModel,
        records: Vec<GameRecord>,
        rules: GameRules,
        scorer: Option<Scorer<'a>>,
        mut progress: impl FnMut(Preparing),
    ) -> Result<Self, HeadMaskError> {
        if records.is_empty() {
            return Err(HeadMaskError::NoRecords);
        }
        for record in &records {
            if let Err(reason) = record.playable(&rules) {
                return Err(HeadMaskError::Unplayable { record: record.name.clone(), reason });
            }
        }
        if rules.utility == UtilityKind::Metric && scorer.is_none() {
            return Err(HeadMaskError::NoScorer);
        }
        let tokens: usize = records.iter().map(|record| record.prompt.len()).sum();
        let needed = cache_bytes(model, tokens);
        if let Some(free) = rules.memory_bytes.filter(|&free| needed > free) {
            return Err(HeadMaskError::TooLarge { records: records.len(), tokens, needed, free });
        }
        let mut done = Preparing { records: 0, tokens: 0 };
        let mut prepared = Vec::with_capacity(records.len());
        for record in records {
            let (name, length) = (record.name.clone(), record.prompt.len());
            let before = done.tokens;
            let record = Prepared::new(model, record, &rules, |tokens| {
                progress(Preparing { tokens: before + tokens, ..done });
            })
            .map_err(|error| HeadMaskError::Model { record: name, error: Box::new(error) })?;
            prepared.push(record);
            done = Preparing { records: done.records + 1, tokens: before + length };
            progress(done);
        }
        Ok(Self { model, rules, scorer, records: prepared })
    }

    /// Coalitions of one record that fit into memory as one batch, at least one.
    pub fn batch_limit(&self) -> usize {
        let Some(limit) = self.rules.memory_bytes else { return usize::MAX };
        let held: u64 = self.records.iter().map(|record| record.prompt.bytes() as u64).sum();
        let tokens = self.records.iter().map(|record| record.tokens_of_a_row(&self.rules)).max().unwrap_or(1);
        let row = cache_bytes(self.model, tokens);
        (limit.saturating_sub(held) / row.max(1)).clamp(1, usize::MAX as u64) as usize
    }

    fn play(&self, instance: usize, coalitions: &[&Coalition]) -> Result<Vec<f64>, GameError> {
        let record = self.records.get(instance).ok_or(HeadMaskError::UnknownInstance(instance, self.records.len()))?;
        let mut rows: Vec<RaggedCache> = coalitions
            .iter()
            .map(|coalition| RaggedCache::masked(&record.prompt, coalition, self.rules.window))
            .collect();
        utilities(self.rules.utility, self.scorer.as_ref(), self.model, record, instance, &mut rows)
    }
}

impl Game for HeadMaskGame<'_> {
    fn players(&self) -> usize {
        self.model.config().layout.heads()
    }

    fn instances(&self) -> usize {
        self.records.len()
    }

    fn evaluate(&mut self, queries: &[Query<'_>], utilities: &mut [f64]) -> Result<(), GameError> {
        let players = self.players();
        if let Some(query) = queries.iter().find(|query| query.coalition.players() != players) {
            let found = query.coalition.players();
            return Err(HeadMaskError::WrongPlayers { found, expected: players }.into());
        }
        let mut order: Vec<usize> = (0..queries.len()).collect();
        order.sort_by_key(|&query| queries[query].instance);
        let same_record = order.chunk_by(|&a, &b| queries[a].instance == queries[b].instance);
        for batch in same_record.flat_map(|record| record.chunks(self.batch_limit())) {
            let coalitions: Vec<&Coalition> = batch.iter().map(|&query| queries[query].coalition).collect();
            let answers = self.play(queries[batch[0]].instance, &coalitions)?;
            batch.iter().zip(answers).for_each(|(&query, utility)| utilities[query] = utility);
        }
        Ok(())
    }
}
