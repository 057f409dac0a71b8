//! Plans and runs the matrix.

use std::time::Instant;

use cokv_core::{Budget, HeadLayout, Method, ObservationRequest, Selection};
use cokv_models::cache::RaggedCache;
use cokv_models::{LanguageModel, ModelError, Prefill, StopRule};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::measure::{agreement, damage};
use super::store::{Row, RunStore, StoreError};
use crate::config::{Config, RunConfig, SYNTHETIC};
use crate::data::longbench::LongBench;
use crate::data::{DataError, Record, TaskProtocol, TaskRecords, synthetic, synthetic_task};
use crate::metrics;
use crate::prompt::{self, Prompt};

/// Why a run stopped.
#[derive(Debug, Error)]
pub enum RunError {
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A record cannot be run.
    #[error("task {task}, record {record}: {error}")]
    Record {
        /// Name of the task.
        task: String,
        /// Id of the record.
        record: String,
        /// What failed.
        error: Box<ModelError>,
    },
    /// The results cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A method at a budget: a column of the matrix.
struct Cell<'a> {
    method: &'a Method,
    /// None for a method that evicts nothing.
    budget: Option<Budget>,
}

impl Cell<'_> {
    fn budget_name(&self) -> String {
        self.budget.map_or_else(|| "full".into(), |budget| budget.to_string())
    }
}

/// One prompt with its cells.
struct Job {
    protocol: TaskProtocol,
    record: Record,
    prompt: Prompt,
    /// Of every cell, in order.
    fingerprints: Vec<String>,
}

/// A matrix ready to run: every prompt tokenised and checked.
pub struct Matrix<'a> {
    config: &'a RunConfig,
    model: &'a LanguageModel,
    cells: Vec<Cell<'a>>,
    jobs: Vec<Job>,
    request: ObservationRequest,
}

/// What a run will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Methods × budgets.
    pub cells: usize,
    /// Prompts of all tasks.
    pub prompts: usize,
    /// Prompts of which every cell is done.
    pub done: usize,
    /// Tokens of the prompts that are not.
    pub tokens_to_prefill: usize,
}

/// Hears how a run goes.
pub trait Observer {
    /// Prompts that were done already are skipped.
    fn skipped(&mut self, prompts: usize);
    /// A prompt begins.
    fn begin(&mut self, task: &str, record: &str, prompt_tokens: usize);
    /// Tokens of the prompt prefilled so far.
    fn prefilled(&mut self, tokens: usize);
    /// All cells of the prompt are on disk.
    fn finished(&mut self, rows: usize);
    /// Something that the user should know, said once.
    fn note(&mut self, text: &str);
}

impl<'a> Matrix<'a> {
    /// Reads the data, builds every prompt and refuses what the model cannot run, before any long work begins.
    pub fn prepare(config: &'a Config, model: &'a LanguageModel, model_fingerprint: &str) -> Result<Self, RunError> {
        let run = &config.run;
        let mut cells = Vec::new();
        for method in &config.methods {
            match method.evicts() {
                true => cells.extend(run.budgets.iter().map(|&budget| Cell { method, budget: Some(budget) })),
                false => cells.push(Cell { method, budget: None }),
            }
        }
        let request = config.methods.iter().fold(ObservationRequest::default(), |all, m| all.union(m.observations()));
        let mut jobs = Vec::new();
        for TaskRecords { protocol, records } in load(run, model)? {
            let max_new_tokens = protocol.max_new_tokens;
            let room = model.config().max_tokens().saturating_sub(max_new_tokens + CHAT_MARGIN);
            let limit = run.data.max_prompt_tokens.unwrap_or(room);
            for record in records {
                let failed = failed(&protocol.name, &record.id);
                let prompt =
                    prompt::build(model, &protocol, &record, limit, run.data.chat_template).map_err(&failed)?;
                let mut prompt = prompt;
                prompt.answer.truncate(run.run.answer_tokens);
                let longest = prompt.tokens.len() + max_new_tokens.max(prompt.answer.len());
                model.config().check_length(longest).map_err(&failed)?;
                let fingerprints = cells
                    .iter()
                    .map(|cell| fingerprint(run, model_fingerprint, &protocol, &record, &prompt, cell))
                    .collect();
                jobs.push(Job { protocol: protocol.clone(), record, prompt, fingerprints });
            }
        }
        Ok(Self { config: run, model, cells, jobs, request })
    }

    /// What there is to do, given what a store holds already.
    pub fn plan(&self, store: &RunStore) -> Plan {
        let open = || self.jobs.iter().filter(|job| !is_done(job, store));
        Plan {
            cells: self.cells.len(),
            prompts: self.jobs.len(),
            done: self.jobs.len() - open().count(),
            tokens_to_prefill: open().map(|job| job.prompt.tokens.len()).sum(),
        }
    }

    /// Runs every prompt that is not done and appends its rows.
    pub fn run(&self, store: &mut RunStore, observer: &mut dyn Observer) -> Result<(), RunError> {
        observer.skipped(self.jobs.iter().filter(|job| is_done(job, store)).count());
        let mut said_pass_through = false;
        for job in &self.jobs {
            if is_done(job, store) {
                continue;
            }
            observer.begin(&job.protocol.name, &job.record.id, job.prompt.tokens.len());
            let rows = self.run_prompt(job, observer).map_err(failed(&job.protocol.name, &job.record.id))?;
            let untouched = |row: &&Row| row.budget != "full" && row.kept_share >= 1.0;
            if let Some(row) = rows.iter().find(untouched).filter(|_| !said_pass_through) {
                said_pass_through = true;
                observer.note(&format!(
                    "a budget of {} is at least the whole prompt of {} tokens ({} {}): nothing is evicted there",
                    row.budget, row.prompt_tokens, row.task, row.record
                ));
            }
            let missing: Vec<Row> = rows.into_iter().filter(|row| store.row(&row.fingerprint).is_none()).collect();
            let count = missing.len();
            store.append(missing)?;
            observer.finished(count);
        }
        Ok(())
    }

    /// The rows of this matrix that a store holds, in the order of the configuration.
    pub fn rows(&self, store: &RunStore) -> Vec<Row> {
        let fingerprints = self.jobs.iter().flat_map(|job| &job.fingerprints);
        fingerprints.filter_map(|fingerprint| store.row(fingerprint).cloned()).collect()
    }

    fn run_prompt(&self, job: &Job, observer: &mut dyn Observer) -> Result<Vec<Row>, ModelError> {
        let started = Instant::now();
        let prefill = self.model.prefill(&job.prompt.tokens, self.request, |tokens| observer.prefilled(tokens))?;
        let prefill_seconds = started.elapsed().as_secs_f64();

        let selections = self.select(&prefill)?;
        // The full cache leads the batch as the reference, whether or not it is a column of its own.
        let mut caches = vec![RaggedCache::full(prefill.cache())];
        caches.extend(selections.iter().map(|selection| RaggedCache::compressed(prefill.cache(), selection)));
        let sizes: Vec<(usize, usize)> =
            caches.iter().map(|cache| (cache.total_tokens(), cache.allocated_bytes())).collect();

        let damages = damage(self.model, &mut caches, &job.prompt.answer)?;
        let started = Instant::now();
        let answers = self.model.greedy(&mut caches, prefill.logits(), &self.stop_rule(&job.protocol)?, |_, _| {})?;
        let decode_seconds = started.elapsed().as_secs_f64();

        let Job { protocol, record, prompt, fingerprints } = job;
        let mut rows = Vec::with_capacity(self.cells.len());
        for (index, (cell, fingerprint)) in self.cells.iter().zip(fingerprints).enumerate() {
            let in_batch = index + 1;
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
                fingerprint: fingerprint.clone(),
                model: self.config.model.source.clone(),
                task: protocol.name.clone(),
                record: record.id.clone(),
                method: cell.method.name().into(),
                budget: cell.budget_name(),
                prompt_tokens: prompt.tokens.len(),
                kept_tokens,
                kept_share: kept_tokens as f64 / sizes[0].0 as f64,
                cache_bytes,
                prediction,
                answers: record.answers.clone(),
                all_classes: record.all_classes.clone(),
                length: record.length,
                score,
                log_likelihood: damages[in_batch].log_likelihood,
                divergence: damages[in_batch].divergence,
                agreement: agreement(&answers[0], &answers[in_batch]),
                new_tokens: answers[in_batch].len(),
                prefill_seconds,
                decode_seconds,
                batch_rows: caches.len(),
            });
        }
        Ok(rows)
    }

    /// What each cell keeps; tokens are scored once per method, whatever the number of budgets.
    fn select(&self, prefill: &Prefill) -> Result<Vec<Selection>, ModelError> {
        let layout: HeadLayout = prefill.cache().layout();
        let bytes = prefill.cache().cache_type().bytes();
        let mut selections = Vec::with_capacity(self.cells.len());
        let mut scored: Option<(&str, cokv_core::TokenScores)> = None;
        for cell in &self.cells {
            let Some(budget) = cell.budget else {
                selections.push(Selection::everything(layout.heads()));
                continue;
            };
            // Cells of one method stand next to each other.
            let scores = match scored.take() {
                Some((name, scores)) if name == cell.method.name() => scores,
                _ => prefill.score(cell.method)?,
            };
            let total = budget.total_tokens(layout, prefill.prompt_len(), bytes);
            selections.push(cell.method.select(layout, &scores, total)?);
            scored = Some((cell.method.name(), scores));
        }
        Ok(selections)
    }

    fn stop_rule(&self, protocol: &TaskProtocol) -> Result<StopRule, ModelError> {
        let mut tokens = self.model.stop_tokens().to_vec();
        let mut min_new_tokens = 0;
        if protocol.stops_at_newline {
            tokens.extend(self.model.tokenizer().encode("\n", false)?.last());
            // As LongBench's pred.py: an answer that would begin with its end is not taken.
            min_new_tokens = 1;
        }
        Ok(StopRule { tokens, max_new_tokens: protocol.max_new_tokens, min_new_tokens })
    }
}

/// Tokens left free for what a chat template adds around a prompt.
const CHAT_MARGIN: usize = 64;

fn failed(task: &str, record: &str) -> impl Fn(ModelError) -> RunError + use<> {
    let (task, record) = (task.to_owned(), record.to_owned());
    move |error| RunError::Record { task: task.clone(), record: record.clone(), error: Box::new(error) }
}

fn is_done(job: &Job, store: &RunStore) -> bool {
    job.fingerprints.iter().all(|fingerprint| store.row(fingerprint).is_some())
}

fn load(run: &RunConfig, model: &LanguageModel) -> Result<Vec<TaskRecords>, DataError> {
    let data = &run.data;
    if data.source == SYNTHETIC {
        let tokens_of = |text: &str| model.tokenizer().encode(text, true).map_or(usize::MAX, |ids| ids.len());
        let mut tasks = Vec::new();
        for name in &data.tasks {
            match name.as_str() {
                "all" => tasks.extend(synthetic::Task::ALL),
                name => tasks.push(name.parse()?),
            }
        }
        tasks.dedup();
        return tasks
            .into_iter()
            .map(|task| synthetic_task(task, data.context_tokens, data.records, data.seed, &tokens_of))
            .collect();
    }
    let longbench = LongBench::open(std::path::Path::new(&data.source))?;
    longbench.resolve(&data.tasks)?.iter().map(|task| longbench.load(task, data.records)).collect()
}

/// Hash of all that could change a row.
fn fingerprint(
    run: &RunConfig,
    model_fingerprint: &str,
    protocol: &TaskProtocol,
    record: &Record,
    prompt: &Prompt,
    cell: &Cell<'_>,
) -> String {
    let parts = [
        env!("CARGO_PKG_VERSION").to_owned(),
        model_fingerprint.to_owned(),
        format!("{:?} {:?}", run.model.weights, run.model.cache),
        format!("{} {} {:?} {}", protocol.name, protocol.max_new_tokens, protocol.metric, protocol.stops_at_newline),
        format!("{} {:?} {:?}", record.id, record.answers, record.all_classes),
        format!("{:?} {:?}", prompt.tokens, prompt.answer),
        format!("{} {}", cell.method.name(), cell.method.definition()),
        cell.budget_name(),
    ];
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}
