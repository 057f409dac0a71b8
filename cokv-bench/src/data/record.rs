//! Records, and how the tasks that they belong to are asked, answered and scored.

use serde::{Deserialize, Serialize};

use crate::metrics::Metric;

/// One question over one long text, with the fields of LongBench's data files.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Unique within the task.
    pub id: String,
    /// Name of the task.
    pub task: String,
    /// The question; empty where the context is all there is.
    pub input: String,
    /// The long text.
    pub context: String,
    /// Acceptable answers; the first is the reference.
    pub answers: Vec<String>,
    /// Labels of a classification task; empty elsewhere.
    pub all_classes: Vec<String>,
    /// Length of the text in the benchmark's own count (words, characters or tokens).
    pub length: u64,
    /// Language of the text.
    pub language: String,
    /// Hash of what makes it this record and no other, from whatever folder and of whatever length: of a synthetic record
    /// its task, seed and index, because the question and the answer stay when the context grows; of a supplied question, the
    /// question, its answers and the paragraphs that answer it.
    pub fingerprint: String,
    /// Where in a grid of lengths and depths it stands; none outside of one.
    pub place: Option<Place>,
}

/// A place in the grid of a needle in a haystack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Tokens of the prompt, as asked for.
    pub context_tokens: usize,
    /// What is asked for stands behind this part of the filler, in percent: 0 is the beginning, 100 the end.
    pub depth_percent: u32,
}

/// How a task is asked, answered and scored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskProtocol {
    /// Name, as in files and tables.
    pub name: String,
    /// Prompt with `{context}` and `{input}`.
    pub template: String,
    /// Tokens of an answer at most.
    pub max_new_tokens: usize,
    /// How answers are scored.
    pub metric: Metric,
    /// Whether the prompt goes through the model's chat template. Few-shot and code prompts do not: the model continues them.
    pub chat: bool,
    /// Whether a line break ends the answer.
    pub stops_at_newline: bool,
}

impl TaskProtocol {
    /// The prompt of a record.
    pub fn prompt(&self, record: &Record) -> String {
        fill(&self.template, &record.context, &record.input)
    }
}

/// A template with a record's fields put in, in one pass: a context may well contain the text "{input}".
pub(super) fn fill(template: &str, context: &str, input: &str) -> String {
    let mut prompt = String::with_capacity(template.len() + context.len() + input.len());
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        let (before, tail) = rest.split_at(at);
        prompt.push_str(before);
        let field = |name: &str| tail.strip_prefix(name);
        rest = if let Some(after) = field("{context}") {
            prompt.push_str(context);
            after
        } else if let Some(after) = field("{input}") {
            prompt.push_str(input);
            after
        } else {
            prompt.push('{');
            // Python writes a brace as two.
            field("{{").unwrap_or(&tail[1..])
        };
    }
    prompt + rest
}

/// Records of one task.
#[derive(Clone, Debug)]
pub struct TaskRecords {
    /// How they are asked.
    pub protocol: TaskProtocol,
    /// In the order of the data file.
    pub records: Vec<Record>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_filled_once() {
        let protocol = TaskProtocol {
            name: "t".into(),
            template: "{context} {x} {{ {input}{".into(),
            max_new_tokens: 1,
            metric: Metric::QaF1,
            chat: true,
            stops_at_newline: false,
        };
        let record = Record {
            id: "1".into(),
            task: "t".into(),
            input: "why {context}?".into(),
            context: "a {input} b".into(),
            answers: vec![],
            all_classes: vec![],
            length: 0,
            language: "en".into(),
            fingerprint: String::new(),
            place: None,
        };
        assert_eq!(protocol.prompt(&record), "a {input} b {x} { why {context}?{");
    }
}
