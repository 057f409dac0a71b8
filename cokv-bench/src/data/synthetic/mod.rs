//! Long-context tasks made up on the spot, so that a benchmark needs no data set.
//!
//! Every record is a function of its seed, task and index alone: the record at index `i` is the same
//! however many are asked for. A longer context only adds filler; what the record asks, and the
//! answer, stay.
//!
//! Answers have several tokens. The first token of an answer comes from the prefill, which no
//! eviction policy changes, so an answer of one token would measure nothing.
//!
//! Every prompt ends in the beginning of its answer, and the model continues it. Behind a chat template
//! small instruct models first repeat the question as a sentence, whatever they are told: F1 then gives
//! 0.4 to a passkey that is right, and the repetition shares the cache with what is measured. What is
//! hidden is followed by a line break, so that a model that copies it ends its answer there.

mod code_completion;
mod draft;
mod few_shot_classification;
mod filler;
mod key_value;
mod multi_key_needle;
mod passkey;
mod variable_tracking;
mod words;

use std::fmt;
use std::str::FromStr;

use cokv_core::config::unknown_name;
use cokv_core::random::mix;
use rand::SeedableRng;
use rand_pcg::Pcg64;

use self::draft::{Depth, Draft, Fitted};
use super::{Record, fill};
use crate::fingerprint::fingerprint;
use crate::metrics::Metric;

/// What can go wrong when a generated suite is asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntheticError {
    /// What a record must contain does not fit into its context.
    #[error("{task} needs a context of at least {minimum} tokens, not {context_tokens}")]
    ContextTooSmall {
        /// The task asked for.
        task: Task,
        /// The context asked for, in tokens.
        context_tokens: usize,
        /// The smallest context that holds every record asked for, in tokens.
        minimum: usize,
    },
    /// No task has this name.
    #[error("{}", unknown_name("synthetic task", .0, Task::ALL.map(Task::name)))]
    UnknownTask(String),
}

/// A kind of generated record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Task {
    /// One number hidden in prose.
    Passkey,
    /// Several codes hidden in prose, each with its own key; one is asked for.
    MultiKeyNeedle,
    /// A long list of keys with their values; one value is asked for.
    KeyValue,
    /// Variables assigned to one another; all those that hold a given value are asked for.
    VariableTracking,
    /// Labelled texts, then one without its label.
    FewShotClassification,
    /// A Python module whose last line breaks off.
    CodeCompletion,
}

/// All that sets one task apart from the others; each task's file has one.
struct Definition {
    name: &'static str,
    template: &'static str,
    max_new_tokens: usize,
    metric: Metric,
    chat: bool,
    stops_at_newline: bool,
    language: &'static str,
    draft: fn(Pcg64, Depth) -> Draft,
}

impl Task {
    /// Every task, in the order in which reports list them.
    pub const ALL: [Task; 6] = [
        Task::Passkey,
        Task::MultiKeyNeedle,
        Task::KeyValue,
        Task::VariableTracking,
        Task::FewShotClassification,
        Task::CodeCompletion,
    ];

    fn definition(self) -> Definition {
        match self {
            Task::Passkey => passkey::DEFINITION,
            Task::MultiKeyNeedle => multi_key_needle::DEFINITION,
            Task::KeyValue => key_value::DEFINITION,
            Task::VariableTracking => variable_tracking::DEFINITION,
            Task::FewShotClassification => few_shot_classification::DEFINITION,
            Task::CodeCompletion => code_completion::DEFINITION,
        }
    }

    /// The task's name, as configuration files write it.
    pub fn name(self) -> &'static str {
        self.definition().name
    }

    /// The prompt, with `{context}` and `{input}` once each where the record's fields go.
    pub fn template(self) -> &'static str {
        self.definition().template
    }

    /// The most tokens to generate for an answer.
    pub fn max_new_tokens(self) -> usize {
        self.definition().max_new_tokens
    }

    /// How an answer is scored.
    pub fn metric(self) -> Metric {
        self.definition().metric
    }

    /// Whether the prompt goes through the model's chat template; otherwise the model continues it.
    pub fn chat(self) -> bool {
        self.definition().chat
    }

    /// Whether the answer ends at the first line break that follows it.
    pub fn stops_at_newline(self) -> bool {
        self.definition().stops_at_newline
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Task {
    type Err = SyntheticError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|task| task.name() == name)
            .ok_or_else(|| SyntheticError::UnknownTask(name.to_owned()))
    }
}

/// Makes the first `count` records of a task and seed.
///
/// `tokens_of` counts the model's tokens of a text. A record's whole prompt (the task's template with
/// the record put in) has at most `context_tokens` of them, and nearly as many. To reserve room for a
/// chat template, let `tokens_of` add its tokens: what it says of the empty text is not taken for
/// filler. A record's `length` is what `tokens_of` says of its prompt.
///
/// # Errors
///
/// [`SyntheticError::ContextTooSmall`] when a record does not fit even without filler.
pub fn generate(
    task: Task,
    context_tokens: usize,
    count: usize,
    seed: u64,
    tokens_of: &dyn Fn(&str) -> usize,
) -> Result<Vec<Record>, SyntheticError> {
    let definition = task.definition();
    let drafts: Vec<Draft> = (0..count as u64)
        .map(|index| (definition.draft)(random_of(task, seed, index), Depth::of_record(index)))
        .collect();

    // All drafts are looked at first, so that the minimum reported is enough for every record.
    let minimum = drafts
        .iter()
        .map(|draft| tokens_of(&fill(definition.template, &draft.context(&[]), &draft.input)))
        .max()
        .unwrap_or(0);
    if minimum > context_tokens {
        return Err(SyntheticError::ContextTooSmall { task, context_tokens, minimum });
    }

    let overhead = tokens_of("");
    let records = drafts.into_iter().enumerate().map(|(index, mut draft)| {
        let input = draft.input.clone();
        let Fitted { context, tokens } =
            draft.fit(context_tokens, &|context| tokens_of(&fill(definition.template, context, &input)), &|piece| {
                tokens_of(piece).saturating_sub(overhead)
            });
        Record {
            id: format!("{task}-{context_tokens}-{seed}-{index}"),
            task: task.to_string(),
            input,
            context,
            answers: vec![draft.answer],
            all_classes: draft.classes,
            length: tokens as u64,
            language: definition.language.to_owned(),
            fingerprint: fingerprint([format!("synthetic {task} {seed} {index}")]),
        }
    });
    Ok(records.collect())
}

/// The random numbers of one record, independent of those of every other.
fn random_of(task: Task, seed: u64, index: u64) -> Pcg64 {
    // The name and not the position in the enum, so that a new task leaves the old ones as they are.
    let name = task.name().bytes().map(u64::from);
    let state = [seed, index].into_iter().chain(name).fold(0, |state, word| mix(state ^ word));
    Pcg64::seed_from_u64(state)
}

#[cfg(test)]
mod tests;
