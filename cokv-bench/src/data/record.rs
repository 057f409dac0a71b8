//! Records, and how the tasks that they belong to are asked, answered and scored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metrics::{Metric, score_prediction};

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
    /// Hash of the text where others may ask about the same: what they say is not independent.
    pub text: Option<String>,
    /// What else the task's template names, of records of one's own.
    pub fields: BTreeMap<String, String>,
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
    /// Prompt with `{context}` and `{input}` (or `{question}`), and names of the records' other fields.
    pub template: String,
    /// Tokens of an answer at most.
    pub max_new_tokens: usize,
    /// How answers are scored.
    pub metric: Metric,
    /// Whether the prompt goes through the model's chat template. Few-shot and code prompts do not: the model continues them.
    pub chat: bool,
    /// Texts that end an answer and are not part of it.
    pub stop: Vec<String>,
    /// Whether only the first line of a prediction is scored.
    pub first_line_only: bool,
}

impl TaskProtocol {
    /// The prompt of a record.
    pub fn prompt(&self, record: &Record) -> String {
        self.filled(&self.template, record)
    }

    fn filled(&self, template: &str, record: &Record) -> String {
        fill(template, |name| {
            asked(name, &record.context, &record.input).or_else(|| record.fields.get(name).map(String::as_str))
        })
    }

    /// What of a record's prompt asks about its context: all behind that; empty where the template does not say.
    pub fn question(&self, record: &Record) -> String {
        let behind = pieces(&self.template).scan(0, |at, piece| {
            *at += piece.1;
            Some((*at, piece.0))
        });
        let last = behind.filter(|(_, piece)| *piece == Piece::Name("context")).last();
        last.map_or(String::new(), |(at, _)| self.filled(&self.template[at..], record))
    }

    /// The score of a prediction, in `[0, 1]`.
    pub fn score(&self, prediction: &str, record: &Record) -> f64 {
        score_prediction(self.metric, self.first_line_only, prediction, &record.answers, &record.all_classes)
    }

    /// An answer up to the first text that ends it.
    pub fn until_stop<'a>(&self, answer: &'a str) -> &'a str {
        let ends = self.stop.iter().filter_map(|stop| answer.find(stop.as_str()));
        &answer[..ends.min().unwrap_or(answer.len())]
    }
}

/// What the names that every template may have stand for.
pub(super) fn asked<'a>(name: &str, context: &'a str, input: &'a str) -> Option<&'a str> {
    match name {
        "context" => Some(context),
        "input" | "question" => Some(input),
        _ => None,
    }
}

/// A template with what its names stand for put in, in one pass: a context may well contain the text "{input}". A name
/// without a value stays as it is written; two braces are one, as in Python's `str.format`.
pub(super) fn fill<'a>(template: &str, value: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut prompt = String::with_capacity(template.len());
    for (piece, _) in pieces(template) {
        match piece {
            Piece::Text(text) => prompt.push_str(text),
            Piece::Name(name) => match value(name) {
                Some(value) => prompt.push_str(value),
                None => prompt.extend(["{", name, "}"]),
            },
        }
    }
    prompt
}

/// The names that a template puts something in for, in order.
pub(super) fn names(template: &str) -> impl Iterator<Item = &str> {
    pieces(template).filter_map(|(piece, _)| match piece {
        Piece::Name(name) => Some(name),
        Piece::Text(_) => None,
    })
}

/// What a template is made of.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// The pieces of a template, from left to right, with the bytes that each takes of it.
fn pieces(template: &str) -> impl Iterator<Item = (Piece<'_>, usize)> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (piece, length) = match rest.find(['{', '}']) {
            None => (Piece::Text(rest), rest.len()),
            Some(0) => match name_at(rest) {
                Some(name) => (Piece::Name(name), name.len() + 2),
                // Python writes a brace as two.
                None => (Piece::Text(&rest[..1]), if rest.starts_with("{{") || rest.starts_with("}}") { 2 } else { 1 }),
            },
            Some(at) => (Piece::Text(&rest[..at]), at),
        };
        rest = &rest[length..];
        Some((piece, length))
    })
}

/// The name in braces that a text begins with.
fn name_at(text: &str) -> Option<&str> {
    let (name, _) = text.strip_prefix('{')?.split_once('}')?;
    let begins = name.starts_with(|first: char| first.is_alphabetic() || first == '_');
    (begins && name.chars().all(|letter| letter.is_alphanumeric() || "_-.".contains(letter))).then_some(name)
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

    fn protocol(template: &str) -> TaskProtocol {
        TaskProtocol {
            name: "t".into(),
            template: template.into(),
            max_new_tokens: 1,
            metric: Metric::QaF1,
            chat: true,
            stop: Vec::new(),
            first_line_only: false,
        }
    }

    fn record() -> Record {
        Record {
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
            text: None,
            fields: BTreeMap::from([("domain".to_owned(), "law {{".to_owned())]),
        }
    }

    #[test]
    fn templates_are_filled_once() {
        let prompt = |template: &str| protocol(template).prompt(&record());
        assert_eq!(prompt("{context} {x} {{ {input}{"), "a {input} b {x} { why {context}?{");
        assert_eq!(prompt("{question} on {domain}"), "why {context}? on law {{");
        assert_eq!(names("{a} {{b}} { c } {d-1} {1} {}").collect::<Vec<_>>(), ["a", "d-1"]);
    }

    #[test]
    fn a_question_is_what_stands_behind_the_context() {
        let question = |template: &str| protocol(template).question(&record());
        assert_eq!(question("Read {context} of {domain}.\n{input}\n{{A}}:"), " of law {{.\nwhy {context}?\n{A}:");
        assert_eq!(question("{context} and {context}!"), "!");
        assert_eq!(question("{context}"), "");
        assert_eq!(question("{input}"), "", "nobody knows");
    }

    /// Regression: of doubled braces, `{{` became one and `}}` stayed two.
    #[test]
    fn doubled_braces_are_one_on_both_sides() {
        let template = "Reply as {{\"name\": \"{input}\"}}. {x} }";
        assert_eq!(protocol(template).prompt(&record()), "Reply as {\"name\": \"why {context}?\"}. {x} }");
        assert_eq!(protocol("{{{input}}}").prompt(&record()), "{why {context}?}");
    }

    #[test]
    fn answers_end_at_the_first_text_that_ends_them() {
        let until = |stop: &[&str], answer: &str| {
            let stop = stop.iter().map(|text| (*text).to_owned()).collect();
            TaskProtocol { stop, ..protocol("") }.until_stop(answer).to_owned()
        };
        assert_eq!(until(&["\nQuestion:", "</s>"], "yes</s>no\nQuestion: x"), "yes");
        assert_eq!(until(&["\n"], "one line"), "one line");
        assert_eq!(until(&[], "a\nb"), "a\nb");
    }
}
