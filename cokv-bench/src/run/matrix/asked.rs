//! What a run asks: records, and the prompts that they make for a model.

use cokv_models::Outline;

use super::{RunError, failed};
use crate::config::RunConfig;
use crate::data::prompt::{self, Prompt};
use crate::data::{DataError, Protocol, Record, Suite, TaskProtocol, TaskRecords};

/// A record as a model is asked it.
pub struct Asked {
    pub(super) task: TaskProtocol,
    pub(super) record: Record,
    /// For each protocol of the run.
    pub(super) prompts: Vec<(Protocol, Prompt)>,
    /// Whether it is the first of its task, of which is told what was kept.
    pub(super) first: bool,
}

impl Asked {
    /// The prompt of a protocol, which is one of the run's.
    pub(super) fn prompt(&self, protocol: Protocol) -> &Prompt {
        let of_protocol = self.prompts.iter().find(|(of, _)| *of == protocol);
        of_protocol.or(self.prompts.first()).map(|(_, prompt)| prompt).expect("a prompt for every protocol")
    }

    /// Of the longest prompt.
    pub(super) fn prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|(_, prompt)| prompt.tokens.len()).max().unwrap_or(0)
    }
}

/// The records of a run, generated where they do not come from files.
pub fn tasks(run: &RunConfig, suite: Suite, model: &Outline) -> Result<Vec<TaskRecords>, DataError> {
    let tokens_of = prompt::token_counter(model, run.data.chat_template);
    suite.tasks(&run.data, |protocol| prompt_limit(run, model, protocol), &tokens_of)
}

/// Tokens that a prompt of a task may have.
fn prompt_limit(run: &RunConfig, model: &Outline, protocol: &TaskProtocol) -> usize {
    prompt::limit(model.config().max_tokens(), run.data.max_prompt_tokens, answer_tokens(run, protocol))
}

/// Says of which tasks prompts have fewer tokens than are asked for.
pub fn capped(run: &RunConfig, tasks: &[TaskRecords], model: &Outline) -> Option<String> {
    let answers =
        tasks.iter().map(|TaskRecords { protocol, .. }| (protocol.name.as_str(), answer_tokens(run, protocol)));
    prompt::capped(model.config().max_tokens(), run.data.max_prompt_tokens, answers)
}

/// Tokens of an answer at most, whether the model says it or is made to.
fn answer_tokens(run: &RunConfig, protocol: &TaskProtocol) -> usize {
    protocol.max_new_tokens.max(run.run.answer_tokens)
}

/// Builds every prompt and refuses those that the model cannot take; `prepared` hears of every prompt and how many there are.
pub fn asked(
    run: &RunConfig,
    tasks: Vec<TaskRecords>,
    model: &Outline,
    mut prepared: impl FnMut(usize, usize),
) -> Result<Vec<Asked>, RunError> {
    let records = tasks.iter().map(|task| task.records.len()).sum();
    let mut all = Vec::with_capacity(records);
    for TaskRecords { protocol: task, records: task_records } in tasks {
        let limit = prompt_limit(run, model, &task);
        for (place, record) in task_records.into_iter().enumerate() {
            let failed = failed(&task.name, &record.id);
            let mut prompts = Vec::with_capacity(run.run.protocol.all().len());
            for &protocol in run.run.protocol.all() {
                let chat_use = run.data.chat_template;
                let mut prompt = prompt::build(model, &task, &record, limit, chat_use, protocol).map_err(&failed)?;
                prompt.answer.truncate(run.run.answer_tokens);
                let longest = prompt.tokens.len() + task.max_new_tokens.max(prompt.answer.len());
                model.config().check_length(longest).map_err(&failed)?;
                prompts.push((protocol, prompt));
            }
            all.push(Asked { task: task.clone(), record, prompts, first: place == 0 });
            prepared(all.len(), records);
        }
    }
    Ok(all)
}
