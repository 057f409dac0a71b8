//! Plans and runs the matrix.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::time::Instant;

use cokv_core::{Budget, Method, ObservationRequest, Protected, Selection};
use cokv_models::cache::RaggedCache;
use cokv_models::{LanguageModel, ModelError, Prefill};
use thiserror::Error;

use super::measure::{agreement, damage};
use super::store::{Results, Row, RunStore, StoreError};
use crate::config::{Column, Config, RunConfig, Variant};
use crate::data::{DataError, Record, Suite, TaskProtocol, TaskRecords};
use crate::fingerprint::{build, fingerprint};
use crate::metrics;
use crate::prompt::{self, Prompt};
use crate::selection::Selected;

/// Why a run stopped.
#[derive(Debug, Error)]
pub enum RunError {
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
    /// A method has settings to choose from, and nothing was chosen.
    #[error(
        "nothing was selected for `{method}` on {task} at {budget}: run `cokv select` with the same configuration first"
    )]
    NotSelected {
        /// Name of the method.
        method: String,
        /// Name of the task.
        task: String,
        /// The budget.
        budget: String,
    },
    /// The results cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A column at a budget.
struct Cell<'a> {
    column: &'a Column,
    /// None for a method that evicts nothing.
    budget: Option<Budget>,
}

impl<'a> Cell<'a> {
    /// A budget that does not pay for the tokens which the method always keeps would stop the run at this prompt.
    fn check(&self, model: &LanguageModel, prompt_len: usize) -> Result<(), ModelError> {
        let layout = model.config().layout;
        let Some(budget) = self.budget else { return Ok(()) };
        let total = budget.total_tokens(layout, prompt_len, model.cache_type().bytes());
        self.protected().within(total, layout, prompt_len)?;
        Ok(())
    }

    /// The same for all variants.
    fn protected(&self) -> Protected {
        self.column.variants[0].method.protected()
    }

    /// The variant of a task: the only one, or the one that was chosen.
    fn variant(&self, task: &str, selected: Option<&Selected>) -> Result<&'a Variant, RunError> {
        let [only] = &self.column.variants[..] else {
            let (column, budget) = (&self.column.name, self.budget_name());
            let chosen = selected.and_then(|selected| selected.settings(column, task, &budget));
            let variant = self.column.variants.iter().find(|variant| Some(variant.settings.as_str()) == chosen);
            let not_selected = || RunError::NotSelected { method: column.clone(), task: task.into(), budget };
            return variant.ok_or_else(not_selected);
        };
        Ok(only)
    }

    fn budget_name(&self) -> String {
        self.budget.map_or_else(|| "full".into(), |budget| budget.to_string())
    }
}

/// One prompt with its cells.
struct Job<'a> {
    protocol: TaskProtocol,
    record: Record,
    prompt: Prompt,
    /// The variant and the fingerprint of every cell, in order.
    cells: Vec<(&'a Variant, String)>,
}

/// A matrix ready to run: every prompt tokenised and checked.
pub struct Matrix<'a> {
    config: &'a RunConfig,
    model: &'a LanguageModel,
    cells: Vec<Cell<'a>>,
    jobs: Vec<Job<'a>>,
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
    /// Prompts that lose their middle.
    pub shortened: usize,
    /// Tokens of the longest of those, before.
    pub longest_shortened: usize,
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

/// The records of a run, generated where they do not come from files.
pub fn tasks(run: &RunConfig, suite: Suite, model: &LanguageModel) -> Result<Vec<TaskRecords>, DataError> {
    suite.tasks(&run.data, |protocol| prompt_limit(run, model, protocol), &prompt::token_counter(model))
}

/// Tokens that a prompt of a task may have.
fn prompt_limit(run: &RunConfig, model: &LanguageModel, protocol: &TaskProtocol) -> usize {
    let answer = protocol.max_new_tokens.max(run.run.answer_tokens);
    run.data.max_prompt_tokens.unwrap_or_else(|| prompt::room(model, answer))
}

impl<'a> Matrix<'a> {
    /// Builds every prompt and refuses what the model cannot run, before any long work begins. `selected` says which
    /// settings columns have that list some.
    pub fn prepare(
        config: &'a Config,
        tasks: Vec<TaskRecords>,
        model: &'a LanguageModel,
        model_fingerprint: &str,
        selected: Option<&Selected>,
    ) -> Result<Self, RunError> {
        let run = &config.run;
        let mut cells = Vec::new();
        for column in &config.columns {
            match column.evicts() {
                true => cells.extend(run.budgets.iter().map(|&budget| Cell { column, budget: Some(budget) })),
                false => cells.push(Cell { column, budget: None }),
            }
        }
        let request = config.methods().fold(ObservationRequest::default(), |all, m| all.union(m.observations()));
        let mut jobs: Vec<Job<'a>> = Vec::new();
        for TaskRecords { protocol, records } in tasks {
            let limit = prompt_limit(run, model, &protocol);
            for record in records {
                let failed = failed(&protocol.name, &record.id);
                let mut prompt =
                    prompt::build(model, &protocol, &record, limit, run.data.chat_template).map_err(&failed)?;
                prompt.answer.truncate(run.run.answer_tokens);
                let longest = prompt.tokens.len() + protocol.max_new_tokens.max(prompt.answer.len());
                model.config().check_length(longest).map_err(&failed)?;
                for cell in &cells {
                    cell.check(model, prompt.tokens.len()).map_err(&failed)?;
                }
                let fingerprinted = |cell: &Cell<'a>| -> Result<(&'a Variant, String), RunError> {
                    let variant = cell.variant(&protocol.name, selected)?;
                    let method = &variant.method;
                    Ok((variant, row_fingerprint(run, model_fingerprint, &protocol, &record, &prompt, method, cell)))
                };
                let cells = cells.iter().map(fingerprinted).collect::<Result<_, _>>()?;
                jobs.push(Job { protocol: protocol.clone(), record, prompt, cells });
            }
        }
        Ok(Self { config: run, model, cells, jobs, request })
    }

    /// What there is to do, given what is done already.
    pub fn plan(&self, results: &Results) -> Plan {
        let open = || self.jobs.iter().filter(|job| !is_done(job, results));
        Plan {
            shortened: self.jobs.iter().filter(|job| job.prompt.shortened_from.is_some()).count(),
            longest_shortened: self.jobs.iter().filter_map(|job| job.prompt.shortened_from).max().unwrap_or(0),
            cells: self.cells.len(),
            prompts: self.jobs.len(),
            done: self.jobs.len() - open().count(),
            tokens_to_prefill: open().map(|job| job.prompt.tokens.len()).sum(),
        }
    }

    /// Runs every prompt that is not done and appends its rows.
    pub fn run(&self, store: &mut RunStore, observer: &mut dyn Observer) -> Result<(), RunError> {
        observer.skipped(self.jobs.iter().filter(|job| is_done(job, store.results())).count());
        let mut said = HashSet::new();
        for job in self.jobs.iter() {
            if is_done(job, store.results()) {
                continue;
            }
            observer.begin(&job.protocol.name, &job.record.id, job.prompt.tokens.len());
            let rows = self.run_prompt(job, observer).map_err(failed(&job.protocol.name, &job.record.id))?;
            for (cell, row) in self.cells.iter().zip(&rows) {
                if let Some((kind, text)) = self.remark(cell, row).filter(|(kind, _)| !said.contains(kind)) {
                    said.insert(kind);
                    observer.note(&text);
                }
            }
            let missing: Vec<Row> =
                rows.into_iter().filter(|row| store.results().row(&row.fingerprint).is_none()).collect();
            let count = missing.len();
            store.append(missing)?;
            observer.finished(count);
        }
        Ok(())
    }

    /// What a user should know about a budget that does not do what it seems to, with a name for that kind of remark.
    fn remark(&self, cell: &Cell<'_>, row: &Row) -> Option<(&'static str, String)> {
        cell.budget?;
        let (method, budget, prompt) = (&row.method, &row.budget, row.prompt_tokens);
        let place = format!("first seen in {} {}", row.task, row.record);
        let each = row.kept_tokens / self.model.config().layout.heads();
        let protected = cell.protected().window + cell.protected().sinks;
        if each >= prompt {
            let text =
                format!("a budget of {budget} is at least a whole prompt of {prompt} tokens: nothing is evicted there");
            Some(("whole", format!("{text} ({place})")))
        } else if each == 0 {
            Some(("none", format!("{method} at {budget} keeps less than one token per head of {prompt} ({place})")))
        } else if each <= protected {
            let text =
                format!("{method} at {budget} keeps {each} tokens per head, no more than the {protected} it protects");
            Some(("protected", format!("{text}: no score matters there ({place})")))
        } else {
            None
        }
    }

    /// The rows of this matrix that are done, in the order of the configuration.
    pub fn rows(&self, results: &Results) -> Vec<Row> {
        let fingerprints = self.jobs.iter().flat_map(|job| &job.cells).map(|(_, fingerprint)| fingerprint);
        fingerprints.filter_map(|fingerprint| results.row(fingerprint).cloned()).collect()
    }

    fn run_prompt(&self, job: &Job<'_>, observer: &mut dyn Observer) -> Result<Vec<Row>, ModelError> {
        let started = Instant::now();
        let prefill = self.model.prefill(&job.prompt.tokens, self.request, |tokens| observer.prefilled(tokens))?;
        let prefill_seconds = started.elapsed().as_secs_f64();

        let selections = self.select(job, &prefill)?;
        // The full cache leads the batch as the reference, whether or not it is a column of its own.
        let mut caches = vec![RaggedCache::full(prefill.cache())];
        let mut batch_row = Vec::with_capacity(selections.len());
        for selection in &selections {
            match selection {
                Some(selection) => {
                    batch_row.push(caches.len());
                    caches.push(RaggedCache::compressed(prefill.cache(), selection));
                }
                None => batch_row.push(0),
            }
        }
        let sizes: Vec<(usize, usize)> =
            caches.iter().map(|cache| (cache.total_tokens(), cache.allocated_bytes())).collect();

        let damages = damage(self.model, &mut caches, &job.prompt.answer)?;
        let started = Instant::now();
        let answers = self.model.greedy(
            &mut caches,
            prefill.logits(),
            &prompt::stop_rule(self.model, &job.protocol)?,
            |_, _| ControlFlow::Continue(()),
        )?;
        let decode_seconds = started.elapsed().as_secs_f64();

        let Job { protocol, record, prompt, cells } = job;
        let mut rows = Vec::with_capacity(self.cells.len());
        for ((cell, (variant, fingerprint)), in_batch) in self.cells.iter().zip(cells).zip(batch_row) {
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
                method: cell.column.name.clone(),
                settings: variant.settings.clone(),
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
                batch_rows: caches.len(),
            });
        }
        Ok(rows)
    }

    /// What each cell keeps, none where it evicts nothing. Every layer is looked at once for all methods, and scored once
    /// per method, whatever the number of budgets.
    fn select(&self, job: &Job<'_>, prefill: &Prefill) -> Result<Vec<Option<Selection>>, ModelError> {
        let layout = prefill.cache().layout();
        let bytes = prefill.cache().cache_type().bytes();
        let mut methods: Vec<&Method> = Vec::new();
        for (Variant { method, .. }, _) in &job.cells {
            if method.evicts() && !methods.iter().any(|other| other.name() == method.name()) {
                methods.push(method);
            }
        }
        let scored = prefill.score_all(&methods)?;
        let scores_of = |method: &Method| methods.iter().zip(&scored).find(|(other, _)| other.name() == method.name());
        let select = |(cell, (variant, _)): (&Cell<'_>, &(&Variant, String))| -> Result<Option<Selection>, ModelError> {
            let Some((budget, (method, scores))) = cell.budget.zip(scores_of(&variant.method)) else {
                return Ok(None);
            };
            let total = budget.total_tokens(layout, prefill.prompt_len(), bytes);
            Ok(Some(method.select(layout, scores, total)?))
        };
        self.cells.iter().zip(&job.cells).map(select).collect()
    }
}

fn failed(task: &str, record: &str) -> impl Fn(ModelError) -> RunError + use<> {
    let (task, record) = (task.to_owned(), record.to_owned());
    move |error| RunError::Record { task: task.clone(), record: record.clone(), error: Box::new(error) }
}

fn is_done(job: &Job<'_>, results: &Results) -> bool {
    job.cells.iter().all(|(_, fingerprint)| results.row(fingerprint).is_some())
}

/// Hash of all that could change a row.
fn row_fingerprint(
    run: &RunConfig,
    model_fingerprint: &str,
    protocol: &TaskProtocol,
    record: &Record,
    prompt: &Prompt,
    method: &Method,
    cell: &Cell<'_>,
) -> String {
    let [version, features] = build();
    let parts = [
        version,
        features,
        model_fingerprint.to_owned(),
        run.model.held_as(),
        format!("{} {} {:?} {}", protocol.name, protocol.max_new_tokens, protocol.metric, protocol.stops_at_newline),
        format!("{} {:?} {:?}", record.id, record.answers, record.all_classes),
        format!("{:?} {:?}", prompt.tokens, prompt.answer),
        format!("{} {}", cell.column.name, method.definition()),
        cell.budget_name(),
    ];
    fingerprint(parts)
}
