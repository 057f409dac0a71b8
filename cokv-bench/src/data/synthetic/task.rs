//! What tasks there are, and what sets them apart.

use std::fmt;
use std::str::FromStr;

use cokv_core::config::unknown_name;

use super::definition::Definition;
use super::{
    code_completion, copied_list, few_shot_classification, instruction_guard, key_value, multi_key_needle, needle,
    passkey, ruler, running_sums, variable_tracking,
};
use crate::data::SyntheticError;
use crate::metrics::Metric;

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
    /// One number hidden in prose, at every length and depth of a grid.
    Needle,
    /// Numbers to be added one after the other: a long answer.
    RunningSums,
    /// A numbered list hidden in prose, to be written again: a long answer.
    CopiedList,
    /// [`Task::KeyValue`], of which several questions are asked.
    SharedKeyValue,
    /// [`Task::MultiKeyNeedle`], likewise.
    SharedNeedles,
    /// [`Task::VariableTracking`], likewise.
    SharedVariables,
    /// [`Task::FewShotClassification`], likewise.
    SharedClassification,
    /// [`Task::CodeCompletion`], likewise.
    SharedCode,
    /// Rules before much prose, each of which is asked for.
    InstructionGuard,
    /// RULER: one number, word or identifier hidden in prose.
    RulerSingle,
    /// RULER: one number among others that have other keys.
    RulerMultiKey,
    /// RULER: all numbers of one key.
    RulerMultiValue,
    /// RULER: the numbers of several keys.
    RulerMultiQuery,
    /// RULER: the words that occur most often in a list.
    RulerCommonWords,
    /// RULER: the most frequent words of a coded text.
    RulerFrequentWords,
    /// RULER: a question whose paragraph is hidden among those of others; questions are supplied.
    RulerQuestionAnswering,
}

/// Names that stand for several tasks.
const GROUPS: [(&str, &[Task]); 4] = [
    ("all", &Task::ALL),
    (RULER, &Task::RULER),
    ("long-answers", &Task::LONG_ANSWERS),
    ("shared-context", &Task::SHARED_CONTEXT),
];

/// The group that supplied questions join.
const RULER: &str = "ruler";

/// Names of groups and of tasks.
pub(super) fn known_names() -> impl Iterator<Item = &'static str> {
    GROUPS.into_iter().map(|(group, _)| group).chain(Task::EVERY.map(Task::name))
}

impl Task {
    /// What `all` stands for, in the order in which reports list them. Published runs rest on these six: later tasks have
    /// names and groups of their own.
    pub const ALL: [Task; 6] = [
        Task::Passkey,
        Task::MultiKeyNeedle,
        Task::KeyValue,
        Task::VariableTracking,
        Task::FewShotClassification,
        Task::CodeCompletion,
    ];

    /// What `long-answers` stands for: tasks of which much is decoded, for methods that evict meanwhile.
    pub const LONG_ANSWERS: [Task; 2] = [Task::RunningSums, Task::CopiedList];

    /// What `shared-context` stands for: tasks that ask five questions about every context, for contexts that are compressed before
    /// anybody asks.
    pub const SHARED_CONTEXT: [Task; 6] = [
        Task::SharedKeyValue,
        Task::SharedNeedles,
        Task::SharedVariables,
        Task::SharedClassification,
        Task::SharedCode,
        Task::InstructionGuard,
    ];

    /// What `ruler` stands for where no questions are supplied.
    pub const RULER: [Task; 7] = [
        Task::RulerSingle,
        Task::RulerMultiKey,
        Task::RulerMultiValue,
        Task::RulerMultiQuery,
        Task::VariableTracking,
        Task::RulerCommonWords,
        Task::RulerFrequentWords,
    ];

    /// Every task there is.
    pub const EVERY: [Task; 22] = [
        Task::Passkey,
        Task::MultiKeyNeedle,
        Task::KeyValue,
        Task::VariableTracking,
        Task::FewShotClassification,
        Task::CodeCompletion,
        Task::Needle,
        Task::RunningSums,
        Task::CopiedList,
        Task::SharedKeyValue,
        Task::SharedNeedles,
        Task::SharedVariables,
        Task::SharedClassification,
        Task::SharedCode,
        Task::InstructionGuard,
        Task::RulerSingle,
        Task::RulerMultiKey,
        Task::RulerMultiValue,
        Task::RulerMultiQuery,
        Task::RulerCommonWords,
        Task::RulerFrequentWords,
        Task::RulerQuestionAnswering,
    ];

    /// The tasks that a name in a configuration stands for: that of a task, `all`, `long-answers`, `shared-context` or `ruler`, which has one more where
    /// questions are supplied.
    pub fn named(name: &str, supplied: bool) -> Result<Vec<Task>, SyntheticError> {
        let tasks = match GROUPS.iter().find(|(group, _)| *group == name) {
            Some((RULER, tasks)) if supplied => [tasks, &[Task::RulerQuestionAnswering][..]].concat(),
            Some((_, tasks)) => tasks.to_vec(),
            None => vec![name.parse()?],
        };
        match tasks.iter().find(|task| task.asks_supplied() && !supplied) {
            Some(&task) => Err(SyntheticError::NoQuestions(task.name())),
            None => Ok(tasks),
        }
    }

    /// Whether any of these names stands for a task that asks supplied questions.
    pub fn any_asks_supplied(names: &[String]) -> bool {
        names.iter().any(|name| name == RULER || name.parse().is_ok_and(Task::asks_supplied))
    }

    /// Whether its questions are supplied, and its records made by `generate_asked`.
    pub fn asks_supplied(self) -> bool {
        self.definition().draft.is_none()
    }

    /// Whether its records are a grid of lengths and depths, as `generate_grid` makes it.
    pub fn is_grid(self) -> bool {
        self == Task::Needle
    }

    /// Whether what fills its context is prose, for which any other will do.
    pub fn hides_in_prose(self) -> bool {
        use Task::*;
        matches!(
            self,
            Passkey
                | MultiKeyNeedle
                | Needle
                | RunningSums
                | CopiedList
                | SharedNeedles
                | InstructionGuard
                | RulerSingle
                | RulerMultiKey
                | RulerMultiValue
                | RulerMultiQuery
        )
    }

    pub(super) fn definition(self) -> Definition {
        match self {
            Task::Passkey => passkey::DEFINITION,
            Task::MultiKeyNeedle => multi_key_needle::DEFINITION,
            Task::KeyValue => key_value::DEFINITION,
            Task::VariableTracking => variable_tracking::DEFINITION,
            Task::FewShotClassification => few_shot_classification::DEFINITION,
            Task::CodeCompletion => code_completion::DEFINITION,
            Task::Needle => needle::DEFINITION,
            Task::RunningSums => running_sums::DEFINITION,
            Task::CopiedList => copied_list::DEFINITION,
            Task::SharedKeyValue => key_value::SHARED,
            Task::SharedNeedles => multi_key_needle::SHARED,
            Task::SharedVariables => variable_tracking::SHARED,
            Task::SharedClassification => few_shot_classification::SHARED,
            Task::SharedCode => code_completion::SHARED,
            Task::InstructionGuard => instruction_guard::DEFINITION,
            Task::RulerSingle => ruler::needles::SINGLE,
            Task::RulerMultiKey => ruler::needles::MULTI_KEY,
            Task::RulerMultiValue => ruler::needles::MULTI_VALUE,
            Task::RulerMultiQuery => ruler::needles::MULTI_QUERY,
            Task::RulerCommonWords => ruler::common_words::DEFINITION,
            Task::RulerFrequentWords => ruler::frequent_words::DEFINITION,
            Task::RulerQuestionAnswering => ruler::question_answering::DEFINITION,
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
        Self::EVERY
            .into_iter()
            .find(|task| task.name() == name)
            .ok_or_else(|| SyntheticError::UnknownTask(unknown_name("synthetic task", name, known_names())))
    }
}
