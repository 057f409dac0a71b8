//! Plans and runs the matrix.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::time::{Duration, Instant};

use cokv_core::{Budget, Method, ObservationRequest, Protected, Selection};
use cokv_models::cache::RaggedCache;
use cokv_models::{LanguageModel, ModelError, Prefill, StopRule};
use cokv_shapley::Shard;
use thiserror::Error;

use super::kept::{Kept, KeptCell};
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
    /// Whether it is the first of its task, of which is told what was kept.
    first: bool,
    /// In the order of the matrix's cells.
    cells: Vec<JobCell<'a>>,
}

/// What a cell is on one prompt.
struct JobCell<'a> {
    /// What was chosen for the task, of settings that were listed to choose from.
    settings: &'a str,
    method: &'a Method,
    fingerprint: String,
}

/// A matrix ready to run: every prompt tokenised and checked.
pub struct Matrix<'a> {
    config: &'a RunConfig,
    model: &'a LanguageModel,
    cells: Vec<Cell<'a>>,
    jobs: Vec<Job<'a>>,
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
    /// Most bytes that the caches, answers and logits of one prompt take, the model itself left out.
    pub bytes: usize,
    /// Tokens of all answers that are still to be decoded, at most.
    pub steps: usize,
}

/// Why a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All is done.
    Complete,
    /// The observer asked for it.
    Stopped,
}

/// Hears how a run goes.
pub trait Observer {
    /// Prompts that were done already are skipped.
    fn skipped(&mut self, prompts: usize);
    /// A prompt begins.
    fn begin(&mut self, task: &str, record: &str, prompt_tokens: usize);
    /// Tokens of the prompt prefilled so far.
    fn prefilled(&mut self, tokens: usize);
    /// All cells of the prompt are on disk. Whether to go on.
    fn finished(&mut self, rows: usize) -> ControlFlow<()>;
    /// Something that the user should know, said once.
    fn note(&mut self, text: &str);
}

/// The records of a run, generated where they do not come from files.
pub fn tasks(run: &RunConfig, suite: Suite, model: &LanguageModel) -> Result<Vec<TaskRecords>, DataError> {
    let tokens_of = prompt::token_counter(model, run.data.chat_template);
    suite.tasks(&run.data, |protocol| prompt_limit(run, model, protocol), &tokens_of)
}

/// Tokens that a prompt of a task may have.
fn prompt_limit(run: &RunConfig, model: &LanguageModel, protocol: &TaskProtocol) -> usize {
    let answer = protocol.max_new_tokens.max(run.run.answer_tokens);
    run.data.max_prompt_tokens.unwrap_or_else(|| prompt::room(model, answer))
}

impl<'a> Matrix<'a> {
    /// Builds every prompt and refuses what the model cannot run, before any long work begins. `selected` says which
    /// settings columns have that list some; `prepared` hears of every prompt and how many there are.
    pub fn prepare(
        config: &'a Config,
        tasks: Vec<TaskRecords>,
        model: &'a LanguageModel,
        model_fingerprint: &str,
        selected: Option<&Selected>,
        mut prepared: impl FnMut(usize, usize),
    ) -> Result<Self, RunError> {
        let run = &config.run;
        let records = tasks.iter().map(|task| task.records.len()).sum();
        let mut cells = Vec::new();
        for column in &config.columns {
            match column.evicts() {
                true => cells.extend(run.budgets.iter().map(|&budget| Cell { column, budget: Some(budget) })),
                false => cells.push(Cell { column, budget: None }),
            }
        }
        let mut jobs: Vec<Job<'a>> = Vec::new();
        for TaskRecords { protocol, records: task_records } in tasks {
            let limit = prompt_limit(run, model, &protocol);
            for (place, record) in task_records.into_iter().enumerate() {
                let failed = failed(&protocol.name, &record.id);
                let mut prompt =
                    prompt::build(model, &protocol, &record, limit, run.data.chat_template).map_err(&failed)?;
                prompt.answer.truncate(run.run.answer_tokens);
                let longest = prompt.tokens.len() + protocol.max_new_tokens.max(prompt.answer.len());
                model.config().check_length(longest).map_err(&failed)?;
                for cell in &cells {
                    cell.check(model, prompt.tokens.len()).map_err(&failed)?;
                }
                let fingerprinted = |cell: &Cell<'a>| -> Result<JobCell<'a>, RunError> {
                    let variant = cell.variant(&protocol.name, selected)?;
                    let method = variant.method(&protocol.name);
                    let fingerprint =
                        row_fingerprint(run, model_fingerprint, &protocol, &record, &prompt, method, cell);
                    Ok(JobCell { settings: &variant.settings, method, fingerprint })
                };
                let cells = cells.iter().map(fingerprinted).collect::<Result<_, _>>()?;
                jobs.push(Job { protocol: protocol.clone(), record, prompt, first: place == 0, cells });
                prepared(jobs.len(), records);
            }
        }
        Ok(Self { config: run, model, cells, jobs })
    }

    /// What there is to do for a shard, given what is done already.
    pub fn plan(&self, results: &Results, shard: Shard) -> Plan {
        let ours = || self.jobs_of(shard);
        let open = || ours().filter(|job| !is_done(job, results));
        // Cells that are not shared prefill and decode one after the other.
        let times = if self.config.run.share_prefill { 1 } else { self.cells.len() };
        Plan {
            shortened: ours().filter(|job| job.prompt.shortened_from.is_some()).count(),
            longest_shortened: ours().filter_map(|job| job.prompt.shortened_from).max().unwrap_or(0),
            cells: self.cells.len(),
            prompts: ours().count(),
            done: ours().count() - open().count(),
            tokens_to_prefill: times * open().map(|job| job.prompt.tokens.len()).sum::<usize>(),
            bytes: open().map(|job| self.bytes(job)).max().unwrap_or(0),
            steps: times * open().map(|job| job.protocol.max_new_tokens).sum::<usize>(),
        }
    }

    /// Every count-th prompt: tasks differ in length, so that their parts would too.
    fn jobs_of(&self, shard: Shard) -> impl Iterator<Item = &Job<'a>> {
        let ours = move |(place, _): &(usize, &Job<'a>)| *place as u64 % shard.count == shard.index;
        self.jobs.iter().enumerate().filter(ours).map(|(_, job)| job)
    }

    /// Memory of a prompt: its cache, every cell's own and its answer's, and the logits of all rows.
    fn bytes(&self, job: &Job<'_>) -> usize {
        let (layout, prompt_len) = (self.model.config().layout, job.prompt.tokens.len());
        let bytes = self.model.cache_type().bytes();
        let whole = layout.heads() * prompt_len;
        let kept =
            |cell: &Cell<'_>| cell.budget.map_or(0, |budget| budget.total_tokens(layout, prompt_len, bytes).min(whole));
        let answer = job.protocol.max_new_tokens.max(job.prompt.answer.len());
        let (rows, cells) = match self.config.run.share_prefill {
            true => (self.cells.len() + 1, self.cells.iter().map(kept).sum::<usize>()),
            false => (2, self.cells.iter().map(kept).max().unwrap_or(0)),
        };
        let tokens = whole + cells + rows * answer * layout.heads();
        let logits = (rows + job.prompt.answer.len()) * self.model.config().vocabulary * size_of::<f32>();
        tokens * layout.bytes_per_token(bytes) + logits
    }

    /// About how long a shard will take, measured on the beginning of its first prompt; none where nothing is to be done.
    /// Long prompts take more than this says, answers that end early less.
    pub fn time(&self, results: &Results, shard: Shard) -> Result<Option<Duration>, RunError> {
        let Some(job) = self.jobs_of(shard).find(|job| !is_done(job, results)) else { return Ok(None) };
        let Plan { tokens_to_prefill, steps, .. } = self.plan(results, shard);
        let failed = failed(&job.protocol.name, &job.record.id);
        let measure = || -> Result<Duration, ModelError> {
            let beginning = &job.prompt.tokens[..job.prompt.tokens.len().min(PROBE_TOKENS)];
            let started = Instant::now();
            let prefill = self.model.prefill(beginning, ObservationRequest::default(), |_| {})?;
            let per_token = started.elapsed() / beginning.len() as u32;
            let rows = if self.config.run.share_prefill { self.cells.len() + 1 } else { 1 };
            let mut caches: Vec<RaggedCache> = (0..rows).map(|_| RaggedCache::full(prefill.cache())).collect();
            let stop = StopRule { tokens: Vec::new(), max_new_tokens: PROBE_STEPS, min_new_tokens: 0 };
            let started = Instant::now();
            self.model.greedy(&mut caches, prefill.logits(), &stop, |_, _| ControlFlow::Continue(()))?;
            let per_step = started.elapsed() / PROBE_STEPS as u32;
            Ok(per_token.mul_f64(tokens_to_prefill as f64) + per_step.mul_f64(steps as f64))
        };
        measure().map(Some).map_err(failed)
    }

    /// Runs every prompt of a shard that is not done and appends its rows.
    pub fn run(&self, store: &mut RunStore, shard: Shard, observer: &mut dyn Observer) -> Result<Ended, RunError> {
        observer.skipped(self.jobs_of(shard).filter(|job| is_done(job, store.results())).count());
        let mut said = HashSet::new();
        for job in self.jobs_of(shard) {
            if is_done(job, store.results()) {
                continue;
            }
            observer.begin(&job.protocol.name, &job.record.id, job.prompt.tokens.len());
            let (rows, kept) = self.run_prompt(job, observer).map_err(failed(&job.protocol.name, &job.record.id))?;
            for (cell, row) in self.cells.iter().zip(&rows) {
                if let Some((kind, text)) = self.remark(cell, row).filter(|(kind, _)| !said.contains(kind)) {
                    said.insert(kind);
                    observer.note(&text);
                }
            }
            if job.first {
                store.append_kept(&kept)?;
            }
            let missing: Vec<Row> =
                rows.into_iter().filter(|row| store.results().row(&row.fingerprint).is_none()).collect();
            let count = missing.len();
            store.append(missing)?;
            let all_done = || self.jobs_of(shard).all(|job| is_done(job, store.results()));
            if observer.finished(count).is_break() && !all_done() {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::Complete)
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

    /// The fingerprints of all rows, in the order of the configuration.
    pub fn fingerprints(&self) -> impl Iterator<Item = &str> {
        self.jobs.iter().flat_map(|job| &job.cells).map(|cell| cell.fingerprint.as_str())
    }

    /// The rows of this matrix that are done, in the order of the configuration.
    pub fn rows(&self, results: &Results) -> Vec<Row> {
        self.fingerprints().filter_map(|fingerprint| results.row(fingerprint).cloned()).collect()
    }

    /// All rows of a prompt, from one prefill and decoded as one batch; or, for comparison, each from a prefill of its own
    /// and decoded alone, as where nothing is shared.
    fn run_prompt(&self, job: &Job<'_>, observer: &mut dyn Observer) -> Result<(Vec<Row>, Kept), ModelError> {
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

/// How much of a prompt, and of an answer, is run to say how long all will take.
const PROBE_TOKENS: usize = 512;
const PROBE_STEPS: usize = 4;

fn failed(task: &str, record: &str) -> impl Fn(ModelError) -> RunError + use<> {
    let (task, record) = (task.to_owned(), record.to_owned());
    move |error| RunError::Record { task: task.clone(), record: record.clone(), error: Box::new(error) }
}

fn is_done(job: &Job<'_>, results: &Results) -> bool {
    job.cells.iter().all(|cell| results.row(&cell.fingerprint).is_some())
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
        format!("{} {}", run.model.source, run.model.held_as()),
        format!("{} {} {:?} {}", protocol.name, protocol.max_new_tokens, protocol.metric, protocol.stops_at_newline),
        format!("{} {:?} {:?}", record.id, record.answers, record.all_classes),
        format!("{:?} {:?}", prompt.tokens, prompt.answer),
        format!("{} {}", cell.column.name, method.definition()),
        cell.budget_name(),
    ];
    fingerprint(parts)
}
