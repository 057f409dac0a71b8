//! What the fields of a record are: its text, question, answers, choices and name.

use std::collections::BTreeMap;

use cokv_core::config::unknown_name;
use serde_json::{Map, Value};

use super::rows::Row;
use crate::data::description::OneOrSeveral;
use crate::data::record::names;
use crate::data::values::{count, kind, text, texts};
use crate::data::{DataError, Description, Record, TaskProtocol};
use crate::fingerprint::fingerprint;
use crate::metrics::{self, Metric};

/// Names that fields have in the wild, likeliest first.
const CONTEXT: [&str; 13] = [
    "context",
    "document",
    "passage",
    "article",
    "text",
    "content",
    "story",
    "documents",
    "paragraphs",
    "contexts",
    "transcript",
    "body",
    "long_text",
];
const QUESTION: [&str; 7] = ["question", "input", "query", "instruction", "problem", "q", "prompt"];
const ANSWERS: [&str; 16] = [
    "answers",
    "answer",
    "outputs",
    "output",
    "target",
    "targets",
    "reference",
    "references",
    "gold",
    "gold_label",
    "label",
    "expected",
    "response",
    "summary",
    "highlights",
    "completion",
];
const CHOICES: [&str; 4] = ["choices", "options", "endings", "candidates"];
const CHOICE_PREFIXES: [&str; 4] = ["choice_", "option_", "choice", "option"];
const CLASSES: [&str; 3] = ["all_classes", "classes", "labels"];
const ID: [&str; 7] = ["_id", "id", "qid", "uid", "question_id", "question_unique_id", "example_id"];

/// Which field is what.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Roles {
    context: Option<String>,
    question: Option<String>,
    answers: String,
    choices: Option<OneOrSeveral>,
    classes: Option<String>,
    id: Option<String>,
    first_choice: usize,
}

/// Records of a row.
#[derive(Debug)]
pub struct Read {
    pub records: Vec<Record>,
    /// Questions without an answer.
    pub unanswered: usize,
}

impl Roles {
    /// What is said of the fields, and what their names say where nothing is; with what was guessed, for users to read.
    pub fn of(sample: &[Row], description: &Description, file: &str) -> Result<(Self, Vec<String>), DataError> {
        let said = &description.fields;
        let known = |name: &str| sample.iter().any(|row| row.fields.contains_key(name));
        let all =
            [("context", &said.context), ("question", &said.question), ("answers", &said.answers), ("id", &said.id)];
        let single = all.into_iter().chain([("classes", &said.classes)]);
        let single = single.filter_map(|(role, name)| Some((role, name.as_ref()?)));
        let choices = said.choices.iter().flat_map(|choices| choices.names()).map(|name| ("choices", name));
        for (role, name) in single.chain(choices) {
            if !known(name) {
                let fields = sample.iter().flat_map(|row| row.fields.keys()).map(String::as_str);
                let mut fields: Vec<&str> = fields.collect();
                fields.sort_unstable();
                fields.dedup();
                let message = format!("[data.fields] {role}: {}", unknown_name("field", name, fields));
                return Err(DataError::File { path: file.into(), message });
            }
        }
        let mut guessed = Vec::new();
        let mut field = |role: &str, said: &Option<String>, names: &[&str]| {
            said.clone().or_else(|| {
                let found = names.iter().find_map(|name| spelled(sample, name))?;
                guessed.push(format!("{role} from `{found}`"));
                Some(found)
            })
        };
        let context = field("context", &said.context, &CONTEXT);
        let question = field("question", &said.question, &QUESTION);
        let answers = field("answers", &said.answers, &ANSWERS);
        let id = field("id", &said.id, &ID);
        let classes = field("classes", &said.classes, &CLASSES);
        let choices = said.choices.clone().or_else(|| {
            let found = choice_fields(sample)?;
            guessed.push(format!("choices from `{}`", found.names().join("`, `")));
            Some(found)
        });
        let Some(answers) = answers else {
            let message = format!(
                "no field looks like answers among {}: name one, [data.fields] answers = \"…\"",
                field_names(&sample[0].fields)
            );
            return Err(DataError::File { path: file.into(), message });
        };
        // QuALITY's authors count from 1.
        let first_choice = description.first_choice.unwrap_or(usize::from(answers == "gold_label"));
        let roles = Self { context, question, answers, choices, classes, id, first_choice };
        let mut notices = Vec::new();
        if !guessed.is_empty() {
            notices.push(format!("{} ([data.fields] says otherwise)", guessed.join(", ")));
        }
        if roles.choices.is_some()
            && description.first_choice.is_none()
            && sample.iter().any(|row| row.fields.get(&roles.answers).is_some_and(Value::is_number))
        {
            notices.push(format!("answers are numbers, taken to count choices from {first_choice} (first_choice)"));
        }
        Ok((roles, notices))
    }

    /// How the records are asked and scored: what is said, and what they look like where nothing is, with that for users to
    /// read.
    pub fn protocol(
        &self,
        task: &str,
        sample: &[Row],
        said: &Description,
    ) -> Result<(TaskProtocol, Vec<String>), String> {
        let answers: Vec<String> = sample
            .iter()
            .filter_map(|row| row.fields.get(&self.answers))
            .flat_map(|value| texts(value).unwrap_or_default())
            .collect();
        let words = |text: &String| text.split_whitespace().count();
        let longest = answers.iter().map(words).max().unwrap_or(0);
        let mut guessed = Vec::new();
        let metric = said.metric.unwrap_or_else(|| {
            let metric = if self.choices.is_some() {
                Metric::Choice
            } else if !answers.is_empty() && answers.iter().all(|answer| metrics::is_number(answer)) {
                Metric::Number
            } else if longest > LONG_ANSWER {
                Metric::RougeL
            } else {
                Metric::QaF1
            };
            guessed.push(format!(
                "metric = {}",
                toml::Value::try_from(metric).map_or(String::new(), |name| name.to_string())
            ));
            metric
        });
        let max_new_tokens = said.max_new_tokens.unwrap_or_else(|| {
            // Words have a token and a half; half as many again may be said.
            let tokens =
                if metric == Metric::RougeL { (2 * longest).clamp(64, 512) } else { 32.max(2 * longest).min(512) };
            guessed.push(format!("max_new_tokens = {tokens}"));
            tokens
        });
        let template = match &said.prompt {
            Some(prompt) => prompt.clone(),
            None => {
                guessed.push("the prompt (cokv data check shows it)".into());
                self.default_prompt(metric)?.into()
            }
        };
        self.check_names(&template, task)?;
        let notices = (!guessed.is_empty()).then(|| format!("guessed from the records: {}", guessed.join(", ")));
        let protocol = TaskProtocol {
            name: task.into(),
            template,
            max_new_tokens,
            metric,
            chat: true,
            stop: said.stop.clone(),
            first_line_only: false,
        };
        Ok((protocol, notices.into_iter().collect()))
    }

    fn default_prompt(&self, metric: Metric) -> Result<&'static str, String> {
        match (&self.context, &self.question, &self.choices) {
            (None, _, _) => {
                Err("no field looks like the long text: name one, [data.fields] context = \"…\", or write the \
                                 prompt = \"…\" that the model is asked"
                    .into())
            }
            (_, Some(_), Some(_)) => {
                Ok("Read the text and answer the question with the letter of the right choice.\n\n\
                                         {context}\n\nQuestion: {question}\n{choices}\n\nAnswer with one letter.")
            }
            (_, Some(_), None) if metric == Metric::RougeL => {
                Ok("Read the text and answer the question.\n\n{context}\n\nQuestion: {question}\n\nAnswer:")
            }
            (_, Some(_), None) => {
                Ok("Read the text and answer the question with as few words as possible.\n\n{context}\n\n\
                                      Question: {question}\n\nAnswer:")
            }
            (_, None, _) if metric == Metric::RougeL => Ok("Summarise the text.\n\n{context}\n\nSummary:"),
            (_, None, _) => {
                Err("no field looks like a question: name one, [data.fields] question = \"…\", or write the \
                                 prompt = \"…\" that the model is asked"
                    .into())
            }
        }
    }

    /// Names that stand for what the records have no field of.
    fn check_names(&self, template: &str, task: &str) -> Result<(), String> {
        let lacks = |name: &str| match name {
            "context" => self.context.is_none(),
            "question" | "input" => self.question.is_none(),
            "choices" => self.choices.is_none(),
            _ => false,
        };
        if names(template).next().is_none() {
            return Err(format!(
                "prompt: it names no field, such as {{context}}, so that all records of {task} are asked the same"
            ));
        }
        match names(template).find(|name| lacks(name)) {
            Some("input") => Err(format!(
                "prompt: {{input}} is the question, and no field of {task} looks like one: [data.fields] question = \"…\""
            )),
            Some(name) => Err(format!(
                "prompt: {{{name}}} is named, and no field of {task} looks like it: [data.fields] {name} = \"…\""
            )),
            None => Ok(()),
        }
    }

    /// The records of a row: one, or one for each question of a list.
    pub fn records(&self, row: &Row, protocol: &TaskProtocol) -> Result<Read, String> {
        let fields = &row.fields;
        let of = |name: &Option<String>| name.as_ref().and_then(|name| fields.get(name));
        let context = of(&self.context).map_or(Ok(String::new()), |value| long_text(value, "context"))?;
        let mut extra = BTreeMap::new();
        for name in names(&protocol.template) {
            match name {
                "context" if context.is_empty() => {
                    return Err(lacking(fields, self.context.as_deref().unwrap_or(name), row.place.number));
                }
                "context" | "choices" => {}
                "question" | "input" if of(&self.question).is_some() => {}
                "question" | "input" => {
                    return Err(lacking(fields, self.question.as_deref().unwrap_or(name), row.place.number));
                }
                name => {
                    let value = fields.get(name).ok_or_else(|| lacking(fields, name, row.place.number))?;
                    extra.insert(name.to_owned(), long_text(value, name)?);
                }
            }
        }
        let (choices, classes) = (self.choices(fields)?, of(&self.classes).map_or(Ok(Vec::new()), texts));
        let classes = classes.map_err(|kind| format!("the classes are {kind}"))?;
        if !choices.is_empty() {
            extra.insert("choices".into(), rendered(&choices));
        }
        let id = of(&self.id).and_then(text).unwrap_or_else(|| row.place.number.to_string());
        let answers = fields.get(&self.answers).unwrap_or(&Value::Null);
        let text_hash = fingerprint([context.clone()]);
        let mut read = Read { records: Vec::new(), unanswered: 0 };
        for (suffix, input, answers) in asked(of(&self.question), answers)? {
            let answers = self.answers(&answers, &choices)?;
            let all_classes = if choices.is_empty() { classes.clone() } else { choices.clone() };
            if answers.is_empty() {
                read.unanswered += 1;
                continue;
            }
            if let Some(reason) = protocol.metric.unscorable(&answers, &all_classes) {
                return Err(format!("record {} cannot be scored: {reason}", row.place.number));
            }
            let hashed = ["own", &input, &context].map(str::to_owned).into_iter().chain(extra.values().cloned());
            read.records.push(Record {
                fingerprint: fingerprint(hashed.chain(answers.iter().cloned())),
                id: format!("{id}{suffix}"),
                task: protocol.name.clone(),
                input,
                context: context.clone(),
                answers,
                all_classes,
                length: fields.get("length").and_then(count).unwrap_or(context.split_whitespace().count() as u64),
                language: String::new(),
                place: None,
                text: Some(text_hash.clone()),
                fields: extra.clone(),
            });
        }
        Ok(read)
    }

    fn choices(&self, fields: &Map<String, Value>) -> Result<Vec<String>, String> {
        let wrong = |name: &str, kind: &str| format!("`{name}` is {kind}, not a choice or a list of choices");
        match &self.choices {
            None => Ok(Vec::new()),
            Some(OneOrSeveral::One(name)) => {
                texts(fields.get(name).unwrap_or(&Value::Null)).map_err(|kind| wrong(name, &kind))
            }
            Some(OneOrSeveral::Several(names)) => {
                let of = |name: &String| {
                    let value = fields.get(name).unwrap_or(&Value::Null);
                    text(value).ok_or_else(|| wrong(name, kind(value)))
                };
                names.iter().map(of).collect()
            }
        }
    }

    /// Right answers; of choices, their letters in parentheses.
    fn answers(&self, value: &Value, choices: &[String]) -> Result<Vec<String>, String> {
        let answers =
            texts(value).map_err(|kind| format!("`{}` is {kind}, not a text or a list of texts", self.answers))?;
        let answers = answers.into_iter().filter(|answer| !answer.trim().is_empty());
        if choices.is_empty() {
            return Ok(answers.collect());
        }
        let of_choice = |answer: String| {
            self.chosen(&answer, choices).and_then(metrics::letter).map(|letter| format!("({letter})")).ok_or_else(|| {
                format!(
                    "the answer `{answer}` is none of the {} choices: a letter, the text of one, or a number from {}",
                    choices.len(),
                    self.first_choice
                )
            })
        };
        answers.map(of_choice).collect()
    }

    /// Which choice an answer is.
    fn chosen(&self, answer: &str, choices: &[String]) -> Option<usize> {
        let answer = answer.trim();
        let bare = answer.trim_start_matches('(').trim_end_matches([')', '.']);
        let by_letter = (0..choices.len())
            .find(|&place| metrics::letter(place).is_some_and(|letter| bare.eq_ignore_ascii_case(&letter.to_string())));
        let by_text = || choices.iter().position(|choice| choice.trim() == answer);
        let number = || answer.parse::<f64>().ok().filter(|number| number.fract() == 0.0);
        let by_number = || (number()? as usize).checked_sub(self.first_choice).filter(|&place| place < choices.len());
        by_letter.or_else(by_text).or_else(by_number)
    }
}

/// Answers of more words than this are summaries and explanations, and no facts.
const LONG_ANSWER: usize = 15;

/// The questions of a row with their answers, and what is added to the row's name for each.
fn asked(question: Option<&Value>, answers: &Value) -> Result<Vec<(String, String, Value)>, String> {
    let Some(Value::Array(questions)) = question else {
        let question = question.map_or(Ok(String::new()), |value| long_text(value, "question"))?;
        return Ok(vec![(String::new(), question, answers.clone())]);
    };
    let answers = match answers {
        Value::Array(answers) if answers.len() == questions.len() => answers,
        Value::Array(answers) => {
            return Err(format!("there are {} questions and {} answers", questions.len(), answers.len()));
        }
        other => return Err(format!("there is a list of questions, and the answers are {}", kind(other))),
    };
    let one = |(at, (question, answers)): (usize, (&Value, &Value))| {
        Ok((format!("-q{}", at + 1), long_text(question, "question")?, answers.clone()))
    };
    questions.iter().zip(answers).enumerate().map(one).collect()
}

/// A text, or texts in lists and tables one below the other, as data sets have paragraphs with titles.
fn long_text(value: &Value, role: &str) -> Result<String, String> {
    match value {
        Value::Array(parts) => {
            let parts: Vec<String> = parts.iter().map(|part| long_text(part, role)).collect::<Result<_, _>>()?;
            Ok(parts.join("\n\n"))
        }
        Value::Object(parts) => {
            let named = ["title", "text", "paragraph_text", "content", "passage", "body"];
            let parts: Vec<&Value> = named.iter().filter_map(|name| parts.get(*name)).collect();
            match parts.is_empty() {
                true => Err(format!("the {role} is a table without `text`")),
                false => Ok(parts.iter().map(|part| long_text(part, role)).collect::<Result<Vec<_>, _>>()?.join("\n")),
            }
        }
        value => text(value).ok_or_else(|| format!("the {role} is {}, not a text", kind(value))),
    }
}

/// Choices as LongBench v2 writes them.
fn rendered(choices: &[String]) -> String {
    let line = |(place, choice): (usize, &String)| match metrics::letter(place) {
        Some(letter) => format!("({letter}) {choice}"),
        None => choice.clone(),
    };
    choices.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// A field of this name, whatever its letters' case.
fn spelled(sample: &[Row], name: &str) -> Option<String> {
    let found = sample.iter().find_map(|row| row.fields.keys().find(|key| key.eq_ignore_ascii_case(name)));
    found.cloned()
}

/// The field of choices, or a field for each.
fn choice_fields(sample: &[Row]) -> Option<OneOrSeveral> {
    if let Some(name) = CHOICES.iter().find_map(|name| spelled(sample, name)) {
        let is_list =
            |row: &Row| row.fields.get(&name).is_some_and(|value| texts(value).is_ok_and(|texts| texts.len() > 1));
        return sample.iter().any(is_list).then_some(OneOrSeveral::One(name));
    }
    let lettered = |prefix: &str| {
        let of_letter = |letter: char| spelled(sample, &format!("{prefix}{letter}"));
        let fields: Vec<String> = (0..26).map_while(|place| of_letter(metrics::letter(place)?)).collect();
        (fields.len() > 1).then_some(OneOrSeveral::Several(fields))
    };
    CHOICE_PREFIXES.into_iter().chain([""]).find_map(lettered)
}

fn lacking(fields: &Map<String, Value>, name: &str, number: usize) -> String {
    format!("record {number} has no `{name}`, which the prompt names; its fields are {}", field_names(fields))
}

fn field_names(fields: &Map<String, Value>) -> String {
    fields.keys().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
