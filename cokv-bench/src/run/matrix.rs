//! The matrix: every prompt with its cells, checked before the first is run, and run one after the other.

mod asked;
mod one_prompt;
mod plan;
mod texts;

use std::collections::HashSet;
use std::time::Instant;

use cokv_core::Shard;
use cokv_core::{Budget, Format, Frame, Method, Protected};
use cokv_models::{LanguageModel, ModelError, Outline};
use thiserror::Error;

pub use self::asked::{Asked, asked, capped, tasks};
pub use self::plan::Plan;
use super::budget::CellBudget;
use super::chosen::Selected;
use super::folder::StoreError;
use super::store::{Results, Row, RunStore};
use crate::config::{Column, Config, RunConfig, Variant};
use crate::data::Protocol;
use crate::data::prompt::Prompt;
use crate::event::{Event, Listener};
use crate::fingerprint::{build, fingerprint};
use crate::machine::memory::peak_resident_bytes;
use crate::scores::HeadScoresWorth;

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
        budget: CellBudget,
    },
    /// A method cannot score a context by itself.
    #[error(
        "`{method}` scores a prompt by its question, which protocol = \"context-only\" does not show it: leave it out, or run it with \
         protocol = \"question-seen\""
    )]
    NeedsQuestion {
        /// Name of the method.
        method: String,
    },
    /// The results cannot be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A column at a budget.
struct Cell<'a> {
    protocol: Protocol,
    column: &'a Column,
    /// None for a method that evicts nothing.
    budget: Option<Budget>,
}

impl<'a> Cell<'a> {
    /// A budget that does not pay for the tokens which the method always keeps would stop the run at this prompt.
    fn check(&self, model: &Outline, format: Format, prompt: &Prompt) -> Result<(), ModelError> {
        let layout = model.config().layout;
        let Some(budget) = self.budget else { return Ok(()) };
        let prompt_len = prompt.compressed_tokens(self.protocol);
        let total = self.column.variants[0].method.allowed(budget, layout, prompt_len, format);
        self.protected(prompt.frame(self.protocol)).within(total, layout, prompt_len)?;
        Ok(())
    }

    /// The same for all variants.
    fn protected(&self, frame: Frame) -> Protected {
        self.column.variants[0].method.protected(frame)
    }

    /// The variant of a task: the only one, or the one that was chosen.
    fn variant(&self, task: &str, selected: Option<&Selected>) -> Result<&'a Variant, RunError> {
        let [only] = &self.column.variants[..] else {
            let (column, budget) = (&self.column.name, self.budget_name());
            let chosen = selected.and_then(|selected| selected.settings(column, task, budget));
            let variant = self.column.variants.iter().find(|variant| Some(variant.settings.as_str()) == chosen);
            let not_selected = || RunError::NotSelected { method: column.clone(), task: task.into(), budget };
            return variant.ok_or_else(not_selected);
        };
        Ok(only)
    }

    /// The method's name in tables.
    fn name(&self) -> String {
        self.protocol.label(&self.column.name)
    }

    fn budget_name(&self) -> CellBudget {
        CellBudget(self.budget)
    }
}

/// One prompt with its cells.
struct Job<'a> {
    asked: &'a Asked,
    /// In the order of the matrix's cells.
    cells: Vec<JobCell<'a>>,
}

/// What a cell is on one prompt.
struct JobCell<'a> {
    /// What was chosen for the task, of settings that were listed to choose from.
    settings: &'a str,
    head_scores: Option<&'a HeadScoresWorth>,
    method: &'a Method,
    fingerprint: String,
}

/// A matrix ready to run: every prompt tokenised and checked.
pub struct Matrix<'a> {
    config: &'a RunConfig,
    model: &'a Outline,
    cells: Vec<Cell<'a>>,
    jobs: Vec<Job<'a>>,
}

/// Why a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All is done.
    Complete,
    /// The observer asked for it.
    Stopped,
}

impl<'a> Matrix<'a> {
    /// Refuses what the model cannot run, before any long work begins. `selected` says which settings columns have that list
    /// some. The model's fingerprint goes into those of all rows.
    pub fn prepare(
        config: &'a Config,
        prompts: &'a [Asked],
        model: &'a Outline,
        model_fingerprint: &str,
        selected: Option<&Selected>,
    ) -> Result<Self, RunError> {
        let run = &config.run;
        let mut cells = Vec::new();
        for &protocol in run.run.protocol.all() {
            for column in &config.columns {
                let cell = |budget| Cell { protocol, column, budget };
                match column.evicts() {
                    true => cells.extend(run.budgets.iter().map(|&budget| cell(Some(budget)))),
                    false => cells.push(cell(None)),
                }
            }
        }
        let blind = |cell: &&Cell<'_>| {
            cell.protocol == Protocol::ContextOnly && cell.column.variants.iter().any(|it| it.method.needs_question())
        };
        if let Some(cell) = cells.iter().find(blind) {
            return Err(RunError::NeedsQuestion { method: cell.column.name.clone() });
        }
        let mut jobs: Vec<Job<'a>> = Vec::with_capacity(prompts.len());
        for asked in prompts {
            let Asked { task, record, .. } = asked;
            for cell in &cells {
                let prompt = asked.prompt(cell.protocol);
                cell.check(model, run.model.cache, prompt).map_err(failed(&task.name, &record.id))?;
            }
            let fingerprinted = |cell: &Cell<'a>| -> Result<JobCell<'a>, RunError> {
                let variant = cell.variant(&task.name, selected)?;
                let method = variant.method(&task.name);
                let fingerprint = row_fingerprint(run, model_fingerprint, asked, method, cell);
                let head_scores = variant.worth(&task.name);
                Ok(JobCell { settings: &variant.settings, head_scores, method, fingerprint })
            };
            let cells = cells.iter().map(fingerprinted).collect::<Result<_, _>>()?;
            jobs.push(Job { asked, cells });
        }
        Ok(Self { config: run, model, cells, jobs })
    }

    /// Every count-th prompt: tasks differ in length, so that their parts would too.
    fn jobs_of(&self, shard: Shard) -> impl Iterator<Item = &Job<'a>> {
        let ours = move |(place, _): &(usize, &Job<'a>)| *place as u64 % shard.count == shard.index;
        self.jobs.iter().enumerate().filter(ours).map(|(_, job)| job)
    }

    /// Runs every prompt of a shard that is not done on the model, loaded, and appends its rows.
    pub fn run(
        &self,
        model: &LanguageModel,
        store: &mut RunStore,
        shard: Shard,
        listener: &mut dyn Listener,
    ) -> Result<Ended, RunError> {
        let open = self.jobs_of(shard).filter(|job| !is_done(job, store.results())).count();
        let _ = listener.hear(&Event::Skipped { prompts: self.jobs_of(shard).count() - open });
        let (started, mut said) = (Instant::now(), HashSet::new());
        let (mut prompts_done, mut count, mut context) = (0, 0, None);
        for job in self.jobs_of(shard) {
            if is_done(job, store.results()) {
                continue;
            }
            let Asked { task, record, first, .. } = job.asked;
            let (task, prompt_tokens) = (task.name.as_str(), job.asked.prompt_tokens());
            let _ = listener.hear(&Event::Begun { task, record: &record.id, prompt_tokens });
            let blind = self.cells.iter().zip(&job.cells).filter(|(cell, _)| cell.protocol == Protocol::QuestionSeen);
            let methods: Vec<&Method> = blind.map(|(_, cell)| cell.method).collect();
            let frame = job.asked.prompt(Protocol::QuestionSeen).frame;
            if let Some(text) = tail_remark(&methods, frame).filter(|_| said.insert("tail")) {
                let _ = listener.hear(&Event::Note { text: &format!("{text} (first seen in {task} {})", record.id) });
            }
            let (rows, kept) = self.run_prompt(model, job, &mut context, listener).map_err(failed(task, &record.id))?;
            for (cell, row) in self.cells.iter().zip(&rows) {
                let prompt = job.asked.prompt(cell.protocol);
                if let Some((kind, text)) = self.remark(cell, row, prompt).filter(|(kind, _)| !said.contains(kind)) {
                    said.insert(kind);
                    let _ = listener.hear(&Event::Note { text: &text });
                }
            }
            if *first {
                store.append_kept(&kept)?;
            }
            let missing: Vec<Row> =
                rows.into_iter().filter(|row| store.results().row(&row.fingerprint).is_none()).collect();
            count += missing.len();
            prompts_done += 1;
            store.append(missing)?;
            let seconds = started.elapsed().as_secs_f64();
            // A prompt may be there twice, and is then done with the first.
            let seconds_left = seconds * open.saturating_sub(prompts_done) as f64 / prompts_done as f64;
            let peak_bytes = peak_resident_bytes();
            let event = Event::Prompt { prompts_done, prompts: open, rows: count, seconds, seconds_left, peak_bytes };
            let all_done = || self.jobs_of(shard).all(|job| is_done(job, store.results()));
            if listener.hear(&event).is_break() && !all_done() {
                return Ok(Ended::Stopped);
            }
        }
        Ok(Ended::Complete)
    }

    /// What a user should know about a budget that does not do what it seems to, with a name for that kind of remark.
    fn remark(&self, cell: &Cell<'_>, row: &Row, prompt: &Prompt) -> Option<(&'static str, String)> {
        cell.budget?;
        let protected = cell.protected(prompt.frame(cell.protocol));
        let (method, budget, prompt) = (&row.method, row.budget, prompt.compressed_tokens(cell.protocol));
        let place = format!("first seen in {} {}", row.task, row.record);
        let each = row.kept_tokens / self.model.config().layout.heads();
        let protected = protected.window + protected.sinks;
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
}

/// What a user should know where the chat template's tail fills the windows of methods: nothing that they see is the user's.
pub fn tail_remark(methods: &[&Method], frame: Frame) -> Option<String> {
    let tail = frame.tail;
    let mut blind: Vec<&str> = Vec::new();
    for method in methods.iter().filter(|method| method.window_within(frame).is_some()) {
        if !blind.contains(&method.name()) {
            blind.push(method.name());
        }
    }
    (!blind.is_empty()).then(|| {
        format!(
            "the window of {} holds no token of the user's text, only some of the {tail} that the chat template puts behind \
             it: set window_from = \"user-text\" in the compressor, or a window above {tail}",
            blind.join(", ")
        )
    })
}

fn failed(task: &str, record: &str) -> impl Fn(ModelError) -> RunError + use<> {
    let (task, record) = (task.to_owned(), record.to_owned());
    move |error| RunError::Record { task: task.clone(), record: record.clone(), error: Box::new(error) }
}

fn is_done(job: &Job<'_>, results: &Results) -> bool {
    job.cells.iter().all(|cell| results.row(&cell.fingerprint).is_some())
}

/// What ends answers, as builds wrote it in which that could be a line break and nothing else, so that their rows stay good.
fn stops(stop: &[String]) -> String {
    match stop {
        [] => "false".into(),
        [newline] if newline == "\n" => "true".into(),
        others => format!("{others:?}"),
    }
}

/// Hash of all that could change a row.
fn row_fingerprint(
    run: &RunConfig,
    model_fingerprint: &str,
    asked: &Asked,
    method: &Method,
    cell: &Cell<'_>,
) -> String {
    let Asked { task: protocol, record, .. } = asked;
    let prompt = asked.prompt(cell.protocol);
    let [version, features] = build(run.model.device.backend());
    let parts = [
        version,
        features,
        model_fingerprint.to_owned(),
        format!("{} {}", run.model.source, run.model.held_as()),
        format!("{} {} {:?} {}", protocol.name, protocol.max_new_tokens, protocol.metric, stops(&protocol.stop)),
        format!("{} {:?} {:?}", record.id, record.answers, record.all_classes),
        format!("{:?} {:?}", prompt.tokens, prompt.answer),
        format!("{} {}", cell.column.name, method.definition()),
        cell.budget_name().to_string(),
    ];
    // Where the user's text ends is nothing to those who count from the prompt's end, and where its question begins to most.
    let frame = prompt.frame(cell.protocol);
    let [of_frame, of_tail, of_none] =
        [frame, Frame::with_tail(frame.tail), Frame::default()].map(|frame| method.protected(frame));
    let tail = (of_tail != of_none).then(|| format!("tail {}", frame.tail));
    let question = (of_frame != of_tail).then(|| format!("question {}", frame.question));
    let context = prompt.compressed_tokens(cell.protocol);
    let protocol = (!cell.protocol.is_question_seen()).then(|| format!("{} {context}", cell.protocol));
    fingerprint(parts.into_iter().chain(tail).chain(question).chain(protocol))
}
