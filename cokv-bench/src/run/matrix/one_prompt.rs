//! All cells of one prompt.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use cokv_core::{Method, ObservationRequest, Selection};
use cokv_models::cache::RaggedCache;
use cokv_models::{Compressed, LanguageModel, ModelError, Prefill};

use super::{Asked, Cell, Job, JobCell, Matrix};
use crate::data::prompt;
use crate::event::{Event, Listener};
use crate::run::kept::{Kept, KeptCell};
use crate::run::measure::{Damage, agreement, damage};
use crate::run::store::Row;

impl Matrix<'_> {
    /// All rows of a prompt, from one prefill and decoded as one batch; or, for comparison, each from a prefill of its own
    /// and decoded alone, as where nothing is shared.
    pub(super) fn run_prompt(
        &self,
        model: &LanguageModel,
        job: &Job<'_>,
        listener: &mut dyn Listener,
    ) -> Result<(Vec<Row>, Kept), ModelError> {
        let Asked { protocol, record, prompt, .. } = job.asked;
        let mut rows = Vec::with_capacity(self.cells.len());
        let mut kept = Kept {
            model: self.config.model.source.clone(),
            task: protocol.name.clone(),
            record: record.id.clone(),
            prompt_tokens: prompt.tokens.len(),
            cells: Vec::new(),
        };
        let mut reference = None;
        let at_once = if self.config.run.share_prefill { self.cells.len() } else { 1 };
        for start in (0..self.cells.len()).step_by(at_once) {
            let cells = start..self.cells.len().min(start + at_once);
            let (of_cells, kept_cells) = self.run_cells(model, job, cells, &mut reference, listener)?;
            rows.extend(of_cells);
            kept.cells.extend(kept_cells);
        }
        Ok((rows, kept))
    }

    /// Some cells of a prompt, from one prefill. `reference` is the full cache's answer, once it is known.
    fn run_cells(
        &self,
        model: &LanguageModel,
        job: &Job<'_>,
        cells: Range<usize>,
        reference: &mut Option<Vec<u32>>,
        listener: &mut dyn Listener,
    ) -> Result<(Vec<Row>, Vec<KeptCell>), ModelError> {
        let Asked { protocol, prompt, first, .. } = job.asked;
        let own = &job.cells[cells.clone()];
        let request = own
            .iter()
            .fold(ObservationRequest::default(), |all, cell| all.union(cell.method.observations(prompt.tail)));
        let started = Instant::now();
        let prefill = model.prefill(&prompt.tokens, request, |tokens| {
            let _ = listener.hear(&Event::Prefilled { tokens, of: prompt.tokens.len() });
        })?;
        let prefill = prefill.with_tail(prompt.tail);
        let prefill_seconds = started.elapsed().as_secs_f64();

        let (mut branches, of_cells) = self.branches(job, cells.clone(), &prefill)?;
        let mut kept = Vec::new();
        if *first {
            let evicting = cells.clone().zip(own).zip(&of_cells);
            kept.extend(evicting.filter_map(|((place, own), &branch)| {
                let (cell, selection) = (&self.cells[place], branches[branch].selection.as_ref()?);
                let (fingerprint, method) = (own.fingerprint.clone(), &cell.column.name);
                Some(KeptCell::of(fingerprint, method, &cell.budget_name(), selection, prompt.tokens.len()))
            }));
        }

        let damages = damage(model, &mut branches, &prompt.answer)?;
        let started = Instant::now();
        let stop = prompt::stop_rule(self.model, protocol)?;
        // The full cache's answer may be known from the cells before.
        let known = usize::from(reference.is_some());
        let batch = &mut branches[known..];
        let batch_rows = batch.len();
        let answers = model.greedy(batch, &[prefill.first(&stop)], &stop, |_, _| ControlFlow::Continue(()))?;
        let decode_seconds = started.elapsed().as_secs_f64();
        branches.iter_mut().zip(damages).for_each(|(branch, damage)| branch.damage = damage);
        branches[known..].iter_mut().zip(answers).for_each(|(branch, answer)| branch.answer = answer);
        let full = reference.get_or_insert_with(|| branches[0].answer.clone());
        branches[0].answer.clone_from(full);

        let times = Times { prefill_seconds, decode_seconds, batch_rows };
        let whole = branches[0].kept_tokens;
        let rows = cells.zip(own).zip(of_cells).map(|((place, own), branch)| {
            self.row(job, &self.cells[place], own, &branches[branch], (whole, full), &times)
        });
        Ok((rows.collect::<Result<_, _>>()?, kept))
    }

    /// What of a prompt is decoded: the full cache first, as the reference, whether or not it is a column of its own; then what
    /// each cell keeps. With them, the branch of every cell. Every layer is looked at once for all methods, whatever the
    /// number of budgets.
    fn branches(
        &self,
        job: &Job<'_>,
        cells: Range<usize>,
        prefill: &Prefill,
    ) -> Result<(Vec<Branch>, Vec<usize>), ModelError> {
        let own = &job.cells[cells.clone()];
        let mut methods: Vec<&Method> = Vec::new();
        for JobCell { method, .. } in own {
            if method.evicts() && !methods.iter().any(|other| other.name() == method.name()) {
                methods.push(method);
            }
        }
        let scored = prefill.score_all(&methods)?;
        let mut branches = vec![Branch::new(RaggedCache::full(prefill.prompt()), None)];
        let mut of_cells = Vec::with_capacity(own.len());
        for (cell, JobCell { method, .. }) in self.cells[cells].iter().zip(own) {
            let scores = methods.iter().position(|other| other.name() == method.name()).map(|at| &scored[at]);
            let Some((budget, scores)) = cell.budget.zip(scores) else {
                of_cells.push(0);
                continue;
            };
            let Compressed { cache, selection, .. } = prefill.compress_scored(method, scores, budget)?;
            of_cells.push(branches.len());
            branches.push(Branch::new(cache, Some(selection)));
        }
        Ok((branches, of_cells))
    }

    /// What is written down of a cell. `full` are the tokens that the full cache keeps and its answer.
    fn row(
        &self,
        job: &Job<'_>,
        cell: &Cell<'_>,
        own: &JobCell<'_>,
        branch: &Branch,
        full: (usize, &[u32]),
        times: &Times,
    ) -> Result<Row, ModelError> {
        let Asked { protocol, record, prompt, .. } = job.asked;
        let prediction = prompt::prediction(self.model, protocol, &branch.answer)?;
        let score = protocol.score(&prediction, record);
        Ok(Row {
            fingerprint: own.fingerprint.clone(),
            model: self.config.model.source.clone(),
            task: protocol.name.clone(),
            record: record.id.clone(),
            method: cell.column.name.clone(),
            settings: own.settings.to_owned(),
            head_scores: own.head_scores.cloned(),
            budget: cell.budget_name(),
            prompt_tokens: prompt.tokens.len(),
            kept_tokens: branch.kept_tokens,
            kept_share: branch.kept_tokens as f64 / full.0 as f64,
            cache_bytes: branch.cache_bytes,
            prediction,
            question: record.input.chars().take(QUESTION_LETTERS).collect(),
            answers: record.answers.clone(),
            all_classes: record.all_classes.clone(),
            length: record.length,
            place: record.place,
            text: record.text.clone(),
            metric: protocol.metric.name().into(),
            score,
            log_likelihood: branch.damage.log_likelihood,
            divergence: branch.damage.divergence,
            agreement: agreement(full.1, &branch.answer, protocol.max_new_tokens),
            new_tokens: branch.answer.len(),
            prefill_seconds: times.prefill_seconds,
            decode_seconds: times.decode_seconds,
            batch_rows: times.batch_rows,
        })
    }
}

/// One way on from a prompt: a row of every pass behind it.
struct Branch {
    cache: RaggedCache,
    /// None where nothing is evicted.
    selection: Option<Selection>,
    kept_tokens: usize,
    cache_bytes: usize,
    damage: Damage,
    answer: Vec<u32>,
}

impl Branch {
    fn new(cache: RaggedCache, selection: Option<Selection>) -> Self {
        let (kept_tokens, cache_bytes) = (cache.total_tokens(), cache.allocated_bytes());
        Self { cache, selection, kept_tokens, cache_bytes, damage: Damage::default(), answer: Vec::new() }
    }
}

impl AsMut<RaggedCache> for Branch {
    fn as_mut(&mut self) -> &mut RaggedCache {
        &mut self.cache
    }
}

/// Of a question, this much tells it from others; examples of few-shot tasks may be long.
const QUESTION_LETTERS: usize = 300;

/// What all cells of a pass share.
struct Times {
    prefill_seconds: f64,
    decode_seconds: f64,
    batch_rows: usize,
}
