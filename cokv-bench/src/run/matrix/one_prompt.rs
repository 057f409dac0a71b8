//! All cells of one prompt.

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use cokv_core::{Method, ObservationRequest, Selection};
use cokv_models::cache::RaggedCache;
use cokv_models::{ModelError, Prefill};

use super::{Cell, Job, JobCell, Matrix, Observer};
use crate::data::prompt;
use crate::metrics;
use crate::run::kept::{Kept, KeptCell};
use crate::run::measure::{agreement, damage};
use crate::run::store::Row;

impl Matrix<'_> {
    /// All rows of a prompt, from one prefill and decoded as one batch; or, for comparison, each from a prefill of its own
    /// and decoded alone, as where nothing is shared.
    pub(super) fn run_prompt(
        &self,
        job: &Job<'_>,
        observer: &mut dyn Observer,
    ) -> Result<(Vec<Row>, Kept), ModelError> {
        let mut rows = Vec::with_capacity(self.cells.len());
        let mut kept = Kept {
            model: self.config.model.source.clone(),
            task: job.protocol.name.clone(),
            record: job.record.id.clone(),
            prompt_tokens: job.prompt.tokens.len(),
            cells: Vec::new(),
        };
        let mut reference = None;
        let at_once = if self.config.run.share_prefill { self.cells.len() } else { 1 };
        for start in (0..self.cells.len()).step_by(at_once) {
            let cells = start..self.cells.len().min(start + at_once);
            self.run_cells(job, cells, &mut reference, observer, &mut rows, &mut kept.cells)?;
        }
        Ok((rows, kept))
    }

    /// Some cells of a prompt, from one prefill. `reference` is the full cache's answer, once it is known.
    fn run_cells(
        &self,
        job: &Job<'_>,
        cells: Range<usize>,
        reference: &mut Option<Vec<u32>>,
        observer: &mut dyn Observer,
        rows: &mut Vec<Row>,
        kept: &mut Vec<KeptCell>,
    ) -> Result<(), ModelError> {
        let Job { protocol, record, prompt, .. } = job;
        let request = job.cells[cells.clone()]
            .iter()
            .fold(ObservationRequest::default(), |all, cell| all.union(cell.method.observations()));
        let started = Instant::now();
        let prefill = self.model.prefill(&prompt.tokens, request, |tokens| observer.prefilled(tokens))?;
        let prefill_seconds = started.elapsed().as_secs_f64();

        let selections = self.select(job, cells.clone(), &prefill)?;
        // The full cache leads the batch as the reference, whether or not it is a column of its own.
        let mut caches = vec![RaggedCache::full(prefill.cache())];
        let mut batch_row = Vec::with_capacity(selections.len());
        let own = &job.cells[cells.clone()];
        for ((cell, JobCell { fingerprint, .. }), selection) in
            self.cells[cells.clone()].iter().zip(own).zip(&selections)
        {
            let Some(selection) = selection else {
                batch_row.push(0);
                continue;
            };
            batch_row.push(caches.len());
            caches.push(RaggedCache::compressed(prefill.cache(), selection));
            if job.first {
                kept.push(KeptCell::of(
                    fingerprint.clone(),
                    &cell.column.name,
                    &cell.budget_name(),
                    selection,
                    prompt.tokens.len(),
                ));
            }
        }
        let sizes: Vec<(usize, usize)> =
            caches.iter().map(|cache| (cache.total_tokens(), cache.allocated_bytes())).collect();

        let damages = damage(self.model, &mut caches, &prompt.answer)?;
        let known = usize::from(reference.is_some());
        let started = Instant::now();
        let stop = prompt::stop_rule(self.model, protocol)?;
        let mut answers =
            self.model.greedy(&mut caches[known..], prefill.logits(), &stop, |_, _| ControlFlow::Continue(()))?;
        let decode_seconds = started.elapsed().as_secs_f64();
        if known == 1 {
            answers.insert(0, reference.clone().unwrap_or_default());
        }
        *reference = Some(answers[0].clone());

        for ((place, own), in_batch) in cells.clone().zip(&job.cells[cells]).zip(batch_row) {
            let cell = &self.cells[place];
            let (kept_tokens, cache_bytes) = sizes[in_batch];
            let prediction = self.model.tokenizer().decode(&answers[in_batch], true)?;
            let score = metrics::score_prediction(
                &protocol.name,
                protocol.metric,
                &prediction,
                &record.answers,
                &record.all_classes,
            );
            rows.push(Row {
                fingerprint: own.fingerprint.clone(),
                model: self.config.model.source.clone(),
                task: protocol.name.clone(),
                record: record.id.clone(),
                method: cell.column.name.clone(),
                settings: own.settings.to_owned(),
                budget: cell.budget_name(),
                prompt_tokens: prompt.tokens.len(),
                kept_tokens,
                kept_share: kept_tokens as f64 / sizes[0].0 as f64,
                cache_bytes,
                prediction,
                answers: record.answers.clone(),
                all_classes: record.all_classes.clone(),
                length: record.length,
                place: record.place,
                score,
                log_likelihood: damages[in_batch].log_likelihood,
                divergence: damages[in_batch].divergence,
                agreement: agreement(&answers[0], &answers[in_batch], protocol.max_new_tokens),
                new_tokens: answers[in_batch].len(),
                prefill_seconds,
                decode_seconds,
                batch_rows: caches.len() - known,
            });
        }
        Ok(())
    }

    /// What some cells keep, none where one evicts nothing. Every layer is looked at once for all methods, and scored once
    /// per method, whatever the number of budgets.
    fn select(
        &self,
        job: &Job<'_>,
        cells: Range<usize>,
        prefill: &Prefill,
    ) -> Result<Vec<Option<Selection>>, ModelError> {
        let layout = prefill.cache().layout();
        let bytes = prefill.cache().cache_type().bytes();
        let mut methods: Vec<&Method> = Vec::new();
        for JobCell { method, .. } in &job.cells[cells.clone()] {
            if method.evicts() && !methods.iter().any(|other| other.name() == method.name()) {
                methods.push(method);
            }
        }
        let scored = prefill.score_all(&methods)?;
        let scores_of = |method: &Method| methods.iter().zip(&scored).find(|(other, _)| other.name() == method.name());
        let select = |(cell, own): (&Cell<'_>, &JobCell<'_>)| -> Result<Option<Selection>, ModelError> {
            let Some((budget, (method, scores))) = cell.budget.zip(scores_of(own.method)) else {
                return Ok(None);
            };
            let total = budget.total_tokens(layout, prefill.prompt_len(), bytes);
            Ok(Some(method.select(layout, scores, total)?))
        };
        self.cells[cells.clone()].iter().zip(&job.cells[cells]).map(select).collect()
    }
}
