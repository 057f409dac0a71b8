//! What users say of records of their own.

use serde::{Deserialize, Serialize};

use crate::metrics::Metric;

/// What is said of records of one's own; what is not is guessed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Description {
    /// Which field of a record is what.
    pub fields: Fields,
    /// What the model is asked, with `{context}`, `{question}`, `{choices}` and names of other fields.
    pub prompt: Option<String>,
    /// How answers are scored.
    pub metric: Option<Metric>,
    /// Tokens of an answer at most.
    pub max_new_tokens: Option<usize>,
    /// Texts that end an answer.
    pub stop: Vec<String>,
    /// What a number stands for as the answer to a question with choices: the first of them is 0, or 1.
    pub first_choice: Option<usize>,
}

impl Description {
    /// The first key that makes no sense whatever the records are, and why.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        if self.max_new_tokens == Some(0) {
            return Err(("max_new_tokens", "`max_new_tokens` is 0: no answer has room".into()));
        }
        if self.stop.iter().any(String::is_empty) {
            return Err(("stop", "`stop` has an empty text, which would end every answer before it begins".into()));
        }
        if let Some(first @ 2..) = self.first_choice {
            return Err(("first_choice", format!("`first_choice` is {first}; choices are counted from 0 or from 1")));
        }
        Ok(())
    }
}

/// `[data.fields]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Fields {
    /// The long text.
    pub context: Option<String>,
    /// What is asked of it.
    pub question: Option<String>,
    /// Right answers, of which the first is the reference.
    pub answers: Option<String>,
    /// What may be chosen: a list, or a field for each.
    pub choices: Option<OneOrSeveral>,
    /// The classes of a classification.
    pub classes: Option<String>,
    /// What rows are called.
    pub id: Option<String>,
}

/// A field, or several.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "the name of a field, or a list of names")]
pub enum OneOrSeveral {
    /// Of a list.
    One(String),
    /// One for each.
    Several(Vec<String>),
}

impl OneOrSeveral {
    /// All names.
    pub fn names(&self) -> &[String] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
        }
    }
}

impl Fields {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
