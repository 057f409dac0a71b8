//! What a run asks: records, and the prompts that they make for a model.

use cokv_models::Outline;

use super::{RunError, failed};
use crate::config::RunConfig;
use crate::data::prompt::{self, Prompt};
use crate::data::{DataError, Record, Suite, TaskProtocol, TaskRecords};

/// A record as a model is asked it.
pub struct Asked {
    pub(super) protocol: TaskProtocol,
    pub(super) record: Record,
    pub(super) prompt: Prompt,
    /// Whether it is the first of its task, of which is told what was kept.
    pub(super) first: bool,
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
    for TaskRecords { protocol, records: task_records } in tasks {
        let limit = prompt_limit(run, model, &protocol);
        for (place, record) in task_records.into_iter().enumerate() {
            let failed = failed(&protocol.name, &record.id);
            let mut prompt =
                prompt::build(model, &protocol, &record, limit, run.data.chat_template).map_err(&failed)?;
            prompt.answer.truncate(run.run.answer_tokens);
            let longest = prompt.tokens.len() + protocol.max_new_tokens.max(prompt.answer.len());
            model.config().check_length(longest).map_err(&failed)?;
            all.push(Asked { protocol: protocol.clone(), record, prompt, first: place == 0 });
            prepared(all.len(), records);
        }
    }
    Ok(all)
}
