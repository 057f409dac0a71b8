//! Decoding and teacher forcing: many caches at once, each row with its own.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::ask::{Against, Along, Ask, Distributions, Top};
use crate::batch::{Batch, BatchSettings, Event, Request, SequenceId, Start};
use crate::cache::RaggedCache;
use crate::engine::Row;
use crate::error::ModelError;
use crate::eviction::Eviction;
use crate::ledger::Ledger;
use crate::model::LanguageModel;
use crate::stop::StopRule;

/// Tokens of one forward pass of teacher forcing, over all rows.
const TOKENS_PER_PASS: usize = 1024;

/// The same tokens fed to several caches, and what is scored along them.
#[derive(Clone, Copy, Debug)]
pub struct Forced<'a> {
    /// What is fed.
    pub tokens: &'a [u32],
    /// First tokens after which nobody looks.
    pub skip: usize,
    /// What follows each of the others; the last may be followed by nothing.
    pub targets: &'a [u32],
}

/// What a row says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Tokens of prompt and answer that all heads together held at most.
    pub most_held: usize,
}

/// Whose distributions those of the rows are compared with.
#[derive(Clone, Copy)]
pub enum ComparedWith<'a> {
    /// Nobody's.
    Nobody,
    /// The first row's.
    First,
    /// Those that were kept before.
    Kept(&'a Distributions),
}

impl LanguageModel {
    /// Greedy answers of all rows, none of which is evicted from meanwhile. See [`answer`](Self::answer).
    pub fn greedy<C: AsMut<RaggedCache>>(
        &self,
        caches: &mut [C],
        first: &[Top],
        stop: &StopRule,
        heard: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let answered = self.answer(caches, std::iter::empty(), first, stop, heard)?;
        Ok(answered.into_iter().map(|answered| answered.tokens).collect())
    }

    /// Greedy answers of all rows, decoded as one batch that finished rows leave. `first` says what comes first: one answer
    /// for all rows, which share a prefill, or one for each. `heard` is told every token, with its row, as it comes, and may
    /// end it all. `evictions` keep the caches of the first rows small meanwhile.
    ///
    /// The caches have then seen all tokens of their answers but the last; those of answers that did not come to their end hold
    /// nothing.
    pub fn answer<C: AsMut<RaggedCache>>(
        &self,
        caches: &mut [C],
        evictions: impl IntoIterator<Item = Option<Eviction>>,
        first: &[Top],
        stop: &StopRule,
        mut heard: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Answered>, ModelError> {
        let chunk = self.engine().chunk();
        let settings = BatchSettings { format: self.format(), chunk, ..BatchSettings::default() };
        // Whoever calls has counted the caches already.
        let mut batch = Batch::new(Arc::clone(self.engine()), settings, Ledger::new(None));
        let mut answers = vec![Answered::default(); caches.len()];
        let mut evictions = evictions.into_iter();
        for (cache, first) in caches.iter_mut().zip(first.iter().cycle()) {
            let eviction = evictions.next().flatten().map(Box::new);
            let start = Start::Cache { cache: cache.as_mut().take(), first: first.clone(), eviction };
            batch.submit(Request::greedy(start, stop.clone()))?;
        }
        let (mut given_up, mut failed) = (false, None);
        while !given_up && failed.is_none() {
            let goes_on = batch.step(&mut |SequenceId(row), event| {
                let row = row as usize;
                match event {
                    Event::Token { token, .. } => {
                        answers[row].tokens.push(token);
                        given_up |= heard(row, token).is_break();
                    }
                    Event::Ended { cache, most_held, .. } => {
                        *caches[row].as_mut() = cache;
                        answers[row].most_held = most_held;
                    }
                    Event::Failed(error) => failed = Some(error),
                    Event::Prefilled { .. } | Event::Read { .. } | Event::Compressed { .. } | Event::Evicted { .. } => {
                    }
                }
            })?;
            if !goes_on {
                break;
            }
        }
        failed.map_or(Ok(answers), Err)
    }

    /// Feeds the same tokens to every cache and says how they fit each row's distributions. The caches are as before
    /// afterwards. With `keep`, the first row's distributions are kept.
    pub fn along<C: AsMut<RaggedCache>>(
        &self,
        caches: &mut [C],
        forced: Forced<'_>,
        compared_with: ComparedWith<'_>,
        keep: bool,
    ) -> Result<Vec<Along>, ModelError> {
        let Forced { tokens, skip, targets } = forced;
        if tokens.len() <= skip {
            return Ok(caches.iter().map(|_| Along::default()).collect());
        }
        let mut all: Vec<Along> = Vec::with_capacity(caches.len());
        for (pass, caches) in caches.chunks_mut(rows_per_pass(tokens)).enumerate() {
            let first_of = |row: usize| pass == 0 && row == 0;
            let kept = all.first().and_then(|first| first.kept.as_ref());
            let against = |row: usize| match compared_with {
                ComparedWith::First if first_of(row) => Against::Nobody,
                ComparedWith::First => kept.map_or(Against::Row(0), Against::Kept),
                ComparedWith::Nobody => Against::Nobody,
                ComparedWith::Kept(distributions) => Against::Kept(distributions),
            };
            let is_kept = |row: usize| first_of(row) && (keep || matches!(compared_with, ComparedWith::First));
            caches.iter_mut().try_for_each(|cache| cache.as_mut().reserve(tokens.len()))?;
            let mut rows = Vec::with_capacity(caches.len());
            for (row, cache) in caches.iter_mut().enumerate() {
                let ask = Ask::Along { skip, targets, against: against(row), keep: is_kept(row) };
                rows.push(Row::new(tokens, cache.as_mut(), ask));
            }
            let answers = self.engine().step(&mut rows)?;
            caches.iter_mut().for_each(|cache| cache.as_mut().rewind(tokens.len()));
            for answer in answers {
                all.push(answer.along(|| "along the reference answer".into())?);
            }
        }
        Ok(all)
    }

    /// The same for caches that are evicted from meanwhile, compared with a full one's, which is as before afterwards. Tokens are fed
    /// from one look at what is held to the next.
    pub fn along_evicting(
        &self,
        full: &mut RaggedCache,
        rows: &mut [(RaggedCache, Eviction)],
        forced: Forced<'_>,
    ) -> Result<Vec<Along>, ModelError> {
        let Forced { tokens, skip, targets } = forced;
        let mut all: Vec<Along> = rows.iter().map(|_| Along::default()).collect();
        full.reserve(tokens.len())?;
        let mut fed = 0;
        while fed < tokens.len() {
            let next = rows.iter().map(|(_, eviction)| eviction.until_next()).min().unwrap_or(usize::MAX);
            let end = tokens.len().min(fed.saturating_add(next));
            let looked_at = fed.max(skip)..end.max(skip);
            let of_targets = |token: usize| (token - skip).min(targets.len());
            let ask = |row: usize| match looked_at.is_empty() {
                true => Ask::Nothing,
                false => Ask::Along {
                    skip: looked_at.start - fed,
                    targets: &targets[of_targets(looked_at.start)..of_targets(looked_at.end)],
                    against: if row == 0 { Against::Nobody } else { Against::Row(0) },
                    keep: row == 0,
                },
            };
            let piece = &tokens[fed..end];
            let mut passed = vec![Row::new(piece, full, ask(0))];
            for (row, (cache, eviction)) in rows.iter_mut().enumerate() {
                cache.reserve(piece.len())?;
                let watches = vec![eviction.watch()];
                passed.push(Row { watches, ..Row::new(piece, cache, ask(row + 1)) });
            }
            let answers = self.engine().step(&mut passed)?;
            for ((along, (cache, eviction)), answer) in
                all.iter_mut().zip(rows.iter_mut()).zip(answers.into_iter().skip(1))
            {
                eviction.after(cache, piece.len())?;
                if !looked_at.is_empty() {
                    let of_piece = answer.along(|| "along the reference answer".into())?;
                    along.log_likelihoods.extend(of_piece.log_likelihoods);
                    along.divergences.extend(of_piece.divergences);
                }
            }
            fed = end;
        }
        full.rewind(tokens.len());
        Ok(all)
    }

    /// Feeds the same tokens to every cache, for good, and answers the same question after the last for each row.
    pub fn extend<C: AsMut<RaggedCache>>(
        &self,
        caches: &mut [C],
        tokens: &[u32],
        stop: &StopRule,
    ) -> Result<Vec<Top>, ModelError> {
        let mut tops = Vec::with_capacity(caches.len());
        for caches in caches.chunks_mut(rows_per_pass(tokens)) {
            caches.iter_mut().try_for_each(|cache| cache.as_mut().reserve(tokens.len()))?;
            let mut rows = Vec::with_capacity(caches.len());
            for cache in caches.iter_mut() {
                let cache = cache.as_mut();
                let end = cache.next_position() + tokens.len();
                rows.push(Row::new(tokens, cache, stop.ask(0)).within(end));
            }
            for answer in self.engine().step(&mut rows)? {
                tops.push(answer.top(|| "after the end of the prompt".into())?);
            }
        }
        Ok(tops)
    }
}

fn rows_per_pass(tokens: &[u32]) -> usize {
    (TOKENS_PER_PASS / tokens.len().max(1)).max(1)
}
