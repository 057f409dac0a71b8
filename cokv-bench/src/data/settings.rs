//! `[data]`: what the model is asked.

use std::path::PathBuf;

use cokv_core::{ConfigError, ConfigTable};
use serde::{Deserialize, Serialize};

use super::synthetic::{MOST_DEPTHS, Task};
use super::{Description, Fields, SYNTHETIC, SourceKind, Split};
use crate::metrics::Metric;

/// Keys that mean something for generated data only.
const GENERATED: [&str; 6] = ["context_tokens", "context_lengths", "depths", "seed", "questions", "haystack"];

/// When prompts go through the model's chat template.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChatUse {
    /// Where the task asks for it and the model has one.
    #[default]
    Auto,
    /// Nowhere, as published for models that LongBench's scripts do not know.
    Never,
}

/// `[data]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DataSettings {
    /// `synthetic`, `hub:THUDM/LongBench`, LongBench's archive or folder, or records of one's own: a file, a folder of
    /// files, or another dataset of the hub.
    pub source: String,
    /// Names of tasks and of groups of tasks, such as `all`.
    pub tasks: Vec<String>,
    /// Records of each task.
    pub records: usize,
    /// Tokens of a synthetic prompt.
    pub context_tokens: usize,
    /// Instead of `context_tokens`, several lengths, each of which gives `records` records of each synthetic task.
    pub context_lengths: Option<Vec<usize>>,
    /// Depths of the task `needle`, evenly spaced from 0 to 100 % of the context; each gives `records` records.
    pub depths: usize,
    /// Which synthetic records.
    pub seed: u64,
    /// What the task `ruler-qa` asks: records of LongBench's layout, one a line, or SQuAD's `.json`.
    pub questions: Option<PathBuf>,
    /// A text that needles and pass keys are hidden in, instead of made-up prose.
    pub haystack: Option<PathBuf>,
    /// Which part of the records of files: `all`, `validation` or `test`.
    pub split: Split,
    /// Longer prompts lose their middle; the default leaves room for the answer in the model's context.
    pub max_prompt_tokens: Option<usize>,
    /// `auto` or `never`.
    pub chat_template: ChatUse,
    /// Which field of a record of one's own is what.
    #[serde(skip_serializing_if = "Fields::is_empty")]
    pub fields: Fields,
    /// What the model is asked of such records, with `{context}`, `{question}`, `{choices}` and names of other fields.
    pub prompt: Option<String>,
    /// How answers to them are scored.
    pub metric: Option<Metric>,
    /// Tokens of an answer at most.
    pub max_new_tokens: Option<usize>,
    /// Texts that end an answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stop: Vec<String>,
    /// What the first choice is as a number, where answers are: 0 or 1.
    pub first_choice: Option<usize>,
}

/// Keys that mean something for records of one's own only.
const OWN: [&str; 6] = ["fields", "prompt", "metric", "max_new_tokens", "stop", "first_choice"];

impl Default for DataSettings {
    fn default() -> Self {
        Self {
            source: SYNTHETIC.into(),
            tasks: vec!["all".into()],
            records: 8,
            context_tokens: 1000,
            context_lengths: None,
            depths: 5,
            seed: 0,
            questions: None,
            haystack: None,
            split: Split::All,
            max_prompt_tokens: None,
            chat_template: ChatUse::Auto,
            fields: Fields::default(),
            prompt: None,
            metric: None,
            max_new_tokens: None,
            stop: Vec::new(),
            first_choice: None,
        }
    }
}

impl DataSettings {
    /// Reads the table and refuses what makes no sense whatever the model is.
    pub(crate) fn read(table: &ConfigTable<'_>) -> Result<Self, ConfigError> {
        let settings: Self = table.read()?;
        settings.description().check().map_err(|(key, message)| table.error_at(key, message))?;
        if settings.tasks.is_empty() {
            return Err(table.error_at("tasks", "`tasks` is empty: name tasks, or \"all\""));
        }
        if settings.source == SYNTHETIC && settings.split != Split::All {
            let message = "`split` is for records of files; other synthetic records are drawn with another seed";
            return Err(table.error_at("split", message));
        }
        if settings.source != SYNTHETIC
            && let Some(key) = GENERATED.into_iter().find(|key| table.contains(key))
        {
            let message = format!("`{key}` is for synthetic data and contradicts source = \"{}\"", settings.source);
            return Err(table.error_at(key, message));
        }
        if SourceKind::of(&settings.source) != SourceKind::Own
            && let Some(key) = OWN.into_iter().find(|key| table.contains(key))
        {
            let message =
                format!("`{key}` is for records of your own and contradicts source = \"{}\"", settings.source);
            return Err(table.error_at(key, message));
        }
        if settings.questions.is_some() && !Task::any_asks_supplied(&settings.tasks) {
            let message = "`questions` is for the task ruler-qa and the group ruler, and `tasks` has neither";
            return Err(table.error_at("questions", message));
        }
        if settings.records == 0 {
            return Err(table.error_at("records", "`records` is 0: there would be nothing to do"));
        }
        if let Some(limit @ 0..2) = settings.max_prompt_tokens {
            let message = format!("`max_prompt_tokens` is {limit}: no half of it would hold a token");
            return Err(table.error_at("max_prompt_tokens", message));
        }
        if !(1..=MOST_DEPTHS).contains(&settings.depths) {
            let message = format!("`depths` is {}, not from 1 to {MOST_DEPTHS}", settings.depths);
            return Err(table.error_at("depths", message));
        }
        if let Some(message) = settings.context_lengths.as_deref().and_then(wrong_lengths) {
            return Err(table.error_at("context_lengths", message));
        }
        if settings.context_lengths.is_some() && table.contains("context_tokens") {
            let message = "`context_tokens` and `context_lengths` both give lengths: leave one out";
            return Err(table.error_at("context_tokens", message));
        }
        Ok(settings)
    }

    /// The table that reads back to this, without the keys that mean nothing for its source.
    pub fn written(&self) -> Result<toml::Table, toml::ser::Error> {
        let mut table = toml::Table::try_from(self)?;
        let left_out = |key: &str| match key {
            "context_tokens" if self.context_lengths.is_some() => true,
            "split" => self.source == SYNTHETIC,
            key => self.source != SYNTHETIC && GENERATED.contains(&key),
        };
        table.retain(|key, _| !left_out(key));
        Ok(table)
    }

    /// What is said of records of one's own.
    pub fn description(&self) -> Description {
        Description {
            fields: self.fields.clone(),
            prompt: self.prompt.clone(),
            metric: self.metric,
            max_new_tokens: self.max_new_tokens,
            stop: self.stop.clone(),
            first_choice: self.first_choice,
        }
    }

    /// The settings for records that mean what others do.
    pub fn described(self, description: Description) -> Self {
        let Description { fields, prompt, metric, max_new_tokens, stop, first_choice } = description;
        Self { fields, prompt, metric, max_new_tokens, stop, first_choice, ..self }
    }

    /// Tokens of synthetic prompts, in the order asked for.
    pub fn lengths(&self) -> &[usize] {
        self.context_lengths.as_deref().unwrap_or(std::slice::from_ref(&self.context_tokens))
    }
}

/// Why lengths are none to generate prompts of.
pub(super) fn wrong_lengths(lengths: &[usize]) -> Option<String> {
    if lengths.is_empty() {
        return Some("`context_lengths` is empty: list lengths such as [500, 1000, 2000]".into());
    }
    let twice = (1..lengths.len()).find(|&at| lengths[..at].contains(&lengths[at]));
    twice.map(|at| format!("the length {} is listed twice", lengths[at]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn read(data: &str) -> Result<DataSettings, String> {
        let text = format!("budgets = [1]\n[data]\n{data}\n[[method]]\ncompressor = 'full'");
        let config = Config::parse("cokv.toml", &text, &cokv_policies::registry());
        config.map(|config| config.run.data).map_err(|error| error.to_string())
    }

    #[test]
    fn lengths_default_to_the_one() {
        assert_eq!(read("context_tokens = 700").unwrap().lengths(), [700]);
        assert_eq!(read("context_lengths = [500, 300]").unwrap().lengths(), [500, 300]);
        assert_eq!(read("tasks = ['needle']").unwrap().depths, 5);
        for tasks in ["['ruler']", "['passkey', 'ruler-qa']"] {
            assert!(read(&format!("tasks = {tasks}\nquestions = 'a.jsonl'")).unwrap().questions.is_some());
        }
    }

    #[test]
    fn grids_that_make_no_sense_are_refused_with_their_line() {
        let error = |data: &str| read(data).unwrap_err();
        assert!(error("depths = 0").starts_with("cokv.toml:3: `depths` is 0, not from 1 to 101"));
        assert!(error("depths = 102").contains("`depths` is 102"));
        assert!(error("context_lengths = []").starts_with("cokv.toml:3: `context_lengths` is empty"));
        assert!(error("context_lengths = [500, 500]").contains("the length 500 is listed twice"));
        assert!(error("context_lengths = [500]\ncontext_tokens = 500").contains(":4: `context_tokens` and `context_l"));
        assert!(error("context_length = [500]").contains("did you mean `context_lengths`?"));
        assert!(
            error("questions = 'a.jsonl'").contains(":3: `questions` is for the task ruler-qa and the group ruler")
        );
        for key in ["context_lengths = [500]", "depths = 3", "questions = 'a.jsonl'"] {
            let message = error(&format!("source = 'x'\n{key}"));
            assert!(message.contains(":4: `") && message.contains("is for synthetic data"), "{message}");
        }
    }
}
